"""Programs of a study: what they say, how they end; files that must not change."""

import threading
import time
from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tools.study.runs import Programs, keep_values

SAVES = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1]).with_name("saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


def test_what_a_failed_program_said_is_quoted_and_kept(tmp_path: Path) -> None:
    log = tmp_path / "run" / "log.txt"
    with Programs() as programs:
        programs.run(log, "json.tool", "--help")
        with pytest.raises(
            UserError, match=r"(?s)json.tool nowhere.json failed .*log.txt.*No such file"
        ) as found:
            programs.run(log, "json.tool", "nowhere.json")
    assert "show this help" not in str(found.value) and "show this help" in log.read_text()


def test_programs_are_asked_to_end_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saves.py").write_text(SAVES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = tmp_path / "began"
    with Programs() as programs:
        thread = threading.Thread(target=programs.run, args=(tmp_path / "log.txt", "saves", str(began)))
        thread.start()
        deadline = time.monotonic() + 30
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert (tmp_path / "saved").exists()
    thread.join(10)
    with pytest.raises(UserError, match="the same command goes on"):
        programs.run(tmp_path / "log.txt", "saves", str(began))


def test_values_are_kept_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run" / "recipe.yaml"
    keep_values(path, {"data": {"grey": (0, 1)}, "lr": 1e-6}, "delete it")
    before = path.read_bytes()
    keep_values(path, {"lr": 1e-6, "data": {"grey": [0, 1]}}, "delete it")
    with pytest.raises(UserError, match=r"data.grey was \[0, 1\], now it is \[0, 0\]; epochs was not said"):
        keep_values(path, {"lr": 1e-6, "data": {"grey": [0, 0]}, "epochs": 3}, "delete it")
    assert path.read_bytes() == before
