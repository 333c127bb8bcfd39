"""What a run tells: its log, its warning, TensorBoard."""

import contextlib
import io
import re
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dali_bgaug.files import read_log
from train import monitor
from train.monitor import PATIENCE, JsonLog, Monitor
from train.records import LogLine, RanksRecord


def _report(watch: Monitor, step: int, loss: float) -> None:
    ranks = RanksRecord(data_wait=[0.1, 0.5], step_s=[0.2, 0.1], probe_ms=[1.0, 1.0])
    watch.report(LogLine(step=step, loss=loss, images_per_s=10.0, data_wait=0.5, ranks=ranks))
    watch.advance()


def _warnings(out: Path) -> list[int]:
    return [line["step"] for line in read_log(out / "log.jsonl")[0] if "warning" in line]


def test_a_loss_that_stays_at_chance_is_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SwAV's with 3000 prototypes: 8.006."""
    watch = Monitor(tmp_path, 0, 200, chance_loss=8.006)
    for step in range(1, 150):
        _report(watch, step, 8.006 + 0.01 * (-1) ** step)
    watch.close()
    assert _warnings(tmp_path) == [PATIENCE]
    assert "the loss has been 8.006 for 50 log lines, that of chance" in capsys.readouterr().out


@pytest.mark.parametrize("chance", [8.006, None])
def test_a_loss_that_moves_is_not(tmp_path: Path, chance: float | None) -> None:
    watch = Monitor(tmp_path, 0, 200, chance_loss=chance)
    for step in range(1, 150):
        _report(watch, step, 7.9 if step % PATIENCE == 0 else 8.006)
    watch.close()
    assert _warnings(tmp_path) == []


def test_what_is_said_has_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the progress bar is on the same screen."""
    screen = io.StringIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, screen)
    watch = Monitor(tmp_path, 0, 4, chance_loss=None)
    watch.advance()
    watch.say("something")
    watch.close()
    assert "something" in re.split("[\r\n]", screen.getvalue())


def test_a_resumed_log_drops_what_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLog(path, 0)
    for step in (1, 2, 3):
        log.write(LogLine(step=step, loss=1.0))
    path.write_text(path.read_text() + '{"step": 4, "lo')
    JsonLog(path, 2)
    assert [line["step"] for line in read_log(path)[0]] == [1, 2]


@pytest.mark.parametrize("damage", ['{"step": 2, "lo', "\0\0\0", "[]", '{"loss": 1.0}', "\xff"])
def test_a_damaged_line_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    """Not what comes after it; the log as it was is kept."""
    path = tmp_path / "log.jsonl"
    lines = ['{"step": 1, "loss": 1.0}', damage, '{"step": 3, "loss": 1.0}', '{"step": 4, "lo']
    path.write_text("\n".join(lines), encoding="latin-1")
    before = path.read_bytes()
    assert read_log(path) == ([{"step": 1, "loss": 1.0}, {"step": 3, "loss": 1.0}], [2])
    JsonLog(path, 3)
    assert read_log(path) == ([{"step": 1, "loss": 1.0}, {"step": 3, "loss": 1.0}], [])
    assert (tmp_path / "log.jsonl.damaged-3").read_bytes() == before
    assert f"{path}: left out lines [2]" in capsys.readouterr().err


def test_a_full_disk_delays_the_log(tmp_path: Path) -> None:
    """Half a line may fit: it is taken back, and all comes with the next line that fits."""
    path = tmp_path / "log.jsonl"
    log = JsonLog(path, 0)
    assert log.write(LogLine(step=1, loss=1.0)) is None
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 9, hard))
    try:
        said = [log.write(LogLine(step=step, loss=1.0)) for step in (2, 3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    problem = "cannot be written (No space left on device); training goes on, and tries again"
    assert said == [f"{path}: {problem}", None]
    assert path.read_bytes() == before
    assert log.write(LogLine(step=4, loss=1.0)) is None
    assert [line["step"] for line in read_log(path)[0]] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["full", "closed", "none"])
def test_a_terminal_that_is_gone_does_not_stop_a_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as screen:
        if kind == "closed":
            screen.close()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, None if kind == "none" else screen)
        watch = Monitor(tmp_path, 0, 4, chance_loss=None)
        for step in range(1, 4):
            _report(watch, step, 1.0)
        watch.say("something")
        watch.close()
        monkeypatch.undo()
        assert [line["step"] for line in read_log(tmp_path / "log.jsonl")[0]] == [1, 2, 3]
        if kind == "full":
            with contextlib.suppress(OSError):
                screen.close()


def test_tensorboard_gets_every_number_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    watch = Monitor(tmp_path, 6, 9, None)
    _report(watch, 7, 0.25)
    watch.close()
    assert written == [
        ("tensorboard", 7),
        ("loss", 0.25, 7),
        ("images_per_s", 10.0, 7),
        ("data_wait", 0.5, 7),
        "closed",
    ]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert monitor._tensorboard(tmp_path / "tensorboard", 0) is None
