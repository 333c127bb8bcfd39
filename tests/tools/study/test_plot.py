"""Curves of runs: what is read from logs, and a panel for each quantity."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from dali_bgaug.errors import UserError
from tools.study import plot
from tools.study.plot import plot_runs, read_curves


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
