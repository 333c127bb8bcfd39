"""What tools share: programs they start."""

from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tools.cli import ask, start


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(UserError, match=r"(?s)python -m json.tool nowhere.json failed.*No such file"):
        start("json.tool", "nowhere.json", quiet=True)


def test_threads_are_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told.py").write_text(
        "import os, sys; open(sys.argv[1], 'w').write(os.environ['OMP_NUM_THREADS'])"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start("told", str(tmp_path / "out"), threads=3)
    assert (tmp_path / "out").read_text() == "3"


def test_one_that_speaks_is_not_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=r"python -m json.tool nowhere.json failed \(status \d\); it says why above$"
    ):
        start("json.tool", "nowhere.json")
    assert "nowhere.json" in capfd.readouterr().err


def test_a_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may say other things before; what it says last of its failure is said of who asks."""
    (tmp_path / "answers.py").write_text(
        "import json, sys\n"
        "job = json.load(sys.stdin)\n"
        "print('well …')\n"
        "print(json.dumps({'twice': 2 * job['number']}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask("answers", '{"number": 4}', "--number=4") == {"twice": 8}
    with pytest.raises(UserError, match="^--number: KeyError: 'number'$"):
        ask("answers", "{}", "--number")


def test_ctrl_c_waits_for_a_program_that_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its time, after a signal that a terminal sends to both."""
    (tmp_path / "saves.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(0.6)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        start("saves", str(tmp_path / "saved"))
    assert (tmp_path / "saved").exists()
