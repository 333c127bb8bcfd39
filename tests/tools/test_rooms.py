"""The rooms of tools/: which commands there are, and which room may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools import ROOMS
from tools.__main__ import COMMANDS, MODULES

ROOT = Path(__file__).parents[2]
_RUNS = 'if __name__ == "__main__"'
FILES = sorted(ROOT.glob("tools/**/*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path: Path) -> set[str]:
    """The modules and names of `tools` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("tools.")}


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_from_one_further_down(room: str) -> None:
    below = ROOMS[ROOMS.index(room) + 1 :]
    files = [path for path in FILES if path.parts[-2] == room or path.parts[-3] == room]
    assert len(files) > 2
    for path in files:
        assert not [name for name in _imports(path) if name.split(".")[1] in below], path


def test_every_program_is_a_command() -> None:
    """But for what others start."""
    programs = {_module(path).removesuffix(".__main__") for path in FILES if _RUNS in path.read_text()}
    inner = {"tools", "tools.clean", "tools.bench.cold", "tools.bench.startup", "tools.bench.ffcv_child"}
    assert programs - inner == set(MODULES.values())


def test_modules_are_imported_by_their_rooms_name() -> None:
    """The short names are for `python -m` alone: a module imported by two names would be two modules."""
    for path in [*FILES, *ROOT.glob("tests/**/*.py")]:
        names = [name.split(".")[1] for name in _imports(path)]
        assert set(names) <= {*ROOMS, "ROOMS", "cli", "clean", "__main__"}, path


@pytest.mark.parametrize("module", MODULES.values())
def test_a_tools_first_line_says_all_of_a_sentence(module: str) -> None:
    """`--help` shows it, and nothing after it."""
    path = ROOT / module.replace(".", "/")
    program = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert ast.get_docstring(ast.parse(program.read_text())).splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("command", ["masks", "plan"])
def test_a_command_has_two_spellings(command: str) -> None:
    texts = [
        subprocess.run([sys.executable, "-m", *words, "--help"], cwd=ROOT, capture_output=True, text=True)
        for words in ([f"tools.{command}"], ["tools", command])
    ]
    assert [text.returncode for text in texts] == [0, 0]
    assert texts[0].stdout == texts[1].stdout
    assert f"usage: tools.{command} " in texts[0].stdout


def test_commands_are_listed() -> None:
    done = subprocess.run([sys.executable, "-m", "tools"], cwd=ROOT, capture_output=True, text=True)
    for commands in COMMANDS.values():
        for name, line in commands.items():
            assert f"  {name}" in done.stdout and line in done.stdout
    wrong = subprocess.run([sys.executable, "-m", "tools", "mask"], cwd=ROOT, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "error: there is no tool 'mask'\n")
