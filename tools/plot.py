"""Draw the loss of one run or several in one picture.

python -m tools.plot out/run1 [out/run2 …] --out out/loss.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from tools._cli import run


def read_losses(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of a run's log.jsonl."""
    path = folder / "log.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such log; give the folder of a run (its --out)")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise UserError(f"{path}: empty; the run has not logged a step yet")
    return np.array([row["step"] for row in rows]), np.array([row["loss"] for row in rows])


def plot_losses(
    runs: list[Path], path: Path, chance: float | None = None, filled_at: int | None = None
) -> None:
    """Write a PNG: each run's loss and its running mean.

    chance: draw the loss of guessing. filled_at: shade the steps before it, in which MoCo's queue still holds
    random vectors and the loss is lower than it means.
    """
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, folder in enumerate(runs):
        steps, losses = read_losses(folder)
        width = max(1, min(len(losses) // 10, 50))
        mean = np.convolve(losses, np.ones(width) / width, mode="valid")
        colour = f"C{number}"
        axis.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.8)
        axis.plot(steps[width - 1 :], mean, color=colour, label=f"{folder.name} (mean of {width})")
    if chance is not None:
        axis.axhline(chance, color="grey", linestyle="--", linewidth=1, label="chance")
    if filled_at:
        axis.axvspan(0, filled_at, color="grey", alpha=0.15, linewidth=0, label="queue fills")
    axis.set(xlabel="step", ylabel="loss")
    axis.grid(alpha=0.3)
    axis.legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.plot", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, default=Path("out/loss.png"), help="(%(default)s)")
    args = parser.parse_args()
    plot_losses(args.runs, args.out)
    print(args.out)


if __name__ == "__main__":
    run(main)
