"""The Makefile takes any path as it is, and `make clean` deletes only what the project made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.clean import clean

ROOT = Path(__file__).parents[2]
ODD = 'it\'s $HOME $(x) "q" #3 * ; a&b'


def _make(*words: str) -> str:
    command = ["make", "--no-print-directory", *words]
    environment = {"PATH": os.environ["PATH"]}  # without what `make test` itself exports
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=True
    ).stdout


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment whose Python prints its arguments, a line each."""
    folder = tmp_path / "no place"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    (folder / ".ready").touch()
    return folder


@pytest.mark.parametrize(
    ("target", "words", "expected"),
    [
        ("masks", ("DATA", "MASKS", "OUT"), ["--photos", "DATA", "--masks", "MASKS", "--out", "OUT/masks"]),
        (
            "tiles",
            ("DATA", "TILES", "OUT"),
            ["--masks", "OUT/masks", "--import", "TILES", "--photos", "DATA"],
        ),
        ("shards", ("DATA", "OUT"), ["--photos", "DATA", "--masks", "OUT/masks", "--tiles", "OUT/tiles"]),
        ("demo", ("DATA", "OUT"), ["--out", "OUT/demo", "--data", "DATA"]),
        ("train", ("CONFIG",), ["--config", "CONFIG"]),
        ("views", ("CONFIG", "OUT"), ["--config", "CONFIG", "--out", "OUT/views.png"]),
        ("inspect", ("OUT",), ["OUT"]),
        ("bench", ("OUT",), ["--shards", "OUT/demo/shards", "--json", "OUT/bench.json"]),
        ("bench", ("SHARDS",), ["--shards", "SHARDS", "--json", "out/bench.json"]),
    ],
)
def test_paths_are_taken_as_they_are(
    target: str, words: tuple[str, ...], expected: list[str], venv: Path
) -> None:
    given = {word: f"/{word.lower()}/{ODD}" for word in words}
    said = _make(target, f"VENV={venv}", *(f"{name}={value}" for name, value in given.items())).splitlines()
    for name, value in given.items():
        expected = [value + word.removeprefix(name) if word.startswith(name) else word for word in expected]
    assert said[2 : 2 + len(expected)] == expected


def test_clean_deletes_what_the_project_made(tmp_path: Path, venv: Path) -> None:
    out = tmp_path / "My Drive"
    for name in ("masks/00000-of-00001.h5", "shards/manifest.json", "demo/x", "run/config.json", "bench.md"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    (out / "masks-report.json").touch()
    (tmp_path / "My").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "manifest.json").touch()
    (out / "thesis").mkdir()
    (out / "thesis" / "thesis.tex").touch()
    (out / "linked").symlink_to(tmp_path / "outside")
    said = _make("clean", f"OUT={out}", f"VENV={venv}")
    assert sorted(path.name for path in out.iterdir()) == ["linked", "thesis"]
    assert said.splitlines() == [
        f"{out / 'linked'}: stays, it is not known as an output of the project",
        f"{out / 'thesis'}: stays, it is not known as an output of the project",
        f"{venv}: stays, it is no virtual environment",
    ]
    assert (tmp_path / "My").is_dir()
    (venv / "pyvenv.cfg").touch()
    (out / "linked").unlink()
    shutil.rmtree(out / "thesis")
    assert clean(out, venv) == []
    assert not out.exists()
    assert not venv.exists()
