"""Curves of runs: what is read from logs, and a panel for each quantity."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from dali_bgaug.errors import UserError
from tools.study import plot
from tools.study.plot import plot_runs, read_curves
from tools.study.rank_plot import plot_ranks


def _run(folder: Path, steps: int, **metrics: float) -> Path:
    folder.mkdir(parents=True)
    lines = [
        {
            "step": step,
            "epoch": 0,
            "loss": 5 / step,
            "lr": 0.1,
            **metrics,
            "images_per_s": 9.0,
            "data_wait": 0.1,
        }
        for step in range(1, steps + 1)
    ]
    lines[-1]["warning"] = "text is no curve"
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_number_of_a_log_is_a_curve(tmp_path: Path) -> None:
    curves = read_curves(_run(tmp_path / "a", 3, feature_std=0.9, accuracy=0.5))
    assert list(curves) == ["loss", "accuracy", "feature_std", "lr", "images_per_s", "data_wait"]
    steps, losses = curves["loss"]
    assert steps.tolist() == [1, 2, 3]
    assert losses.tolist() == [5, 2.5, 5 / 3]


def test_runs_with_other_metrics_share_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A panel a quantity; each run draws only what it has; two folders of one name are told apart."""
    drawn: dict[str, list[str]] = {}
    monkeypatch.setattr(plt, "close", lambda figure: drawn.update(_contents(figure)))
    runs = [
        _run(tmp_path / "swav", 40, feature_std=0.9, prototypes_used=0.5),
        _run(tmp_path / "moco", 1, feature_std=0.9, accuracy=0.1),
        _run(tmp_path / "other" / "moco", 40, feature_std=0.9, accuracy=0.1),
    ]
    plot_runs(runs, tmp_path / "out.png", chance=3.0, filled_at=2)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert list(drawn) == [
        *("loss", "feature_std (0: collapsed)", "prototypes_used", "accuracy"),
        *("learning rate", "images/s", "share of time waiting for data"),
    ]
    one, two = str(tmp_path / "moco"), f"{tmp_path / 'other' / 'moco'} (mean of 4)"
    assert drawn["loss"] == ["swav (mean of 4)", one, two, "queue fills", "chance"]
    assert drawn["prototypes_used"] == ["swav (mean of 4)"]
    assert drawn["accuracy"] == [one, two]


def _ranks(folder: Path, ranks: int, late: int) -> Path:
    """A run whose rank `late` waits .3 of the time for its loader, on a GPU of half the speed; others .02."""
    folder.mkdir()
    lines = []
    for step in (10, 20, 30):
        values = {"data_wait": [0.02] * ranks, "step_s": [0.5] * ranks, "probe_ms": [0.2] * ranks}
        values["data_wait"][late], values["probe_ms"][late] = 0.3, 0.4
        lines.append({"step": step, "loss": 1.0, "images_per_s": 100.0 * ranks, "ranks": values})
    lines[0] = {"step": 1, "loss": 1.0, "images_per_s": 1.0}  # of an older version
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("ranks", "late", "drawn"),
    [(2, 0, ["rank 0", "rank 1"]), (16, 11, ["all ranks", "median rank", "rank 11"])],
)
def test_a_late_rank_is_named_and_drawn(
    ranks: int,
    late: int,
    drawn: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures: dict[str, list[str]] = {}
    monkeypatch.setattr(plt, "close", lambda figure: figures.update(_contents(figure)))
    run, out = _ranks(tmp_path / "run", ranks, late), tmp_path / "ranks.png"
    monkeypatch.setattr(sys, "argv", ["plot", "--ranks", str(run), "--out", str(out)])
    plot.main()
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"rank {late}: waits for data 30% of the time, the median rank 2%; ")
    assert "2.00 times" in first
    assert list(figures.values()) == [drawn] * 3
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_log_without_ranks_has_no_late_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="log.jsonl: no line has 'ranks'"):
        plot_ranks(_run(tmp_path / "old", 3), tmp_path / "out.png")


def _contents(figure: plt.Figure) -> dict[str, list[str]]:
    return {axis.get_ylabel(): axis.get_legend_handles_labels()[1] for axis in figure.axes}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such log"), ('{"st', "empty"), ('{"st\n{"step', "empty")],
)
def test_logs_that_cannot_be_drawn_are_named(
    tmp_path: Path, content: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path), "--out", str(tmp_path / "out.png")])
    with pytest.raises(UserError, match=message) as error:
        plot.main()
    assert str(tmp_path / "log.jsonl") in str(error.value)
    assert not (tmp_path / "out.png").exists()
