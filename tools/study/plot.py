"""Draw the curves of one run or several in one figure: everything that is in their logs.

python -m tools.plot out/run1 [out/run2 …] --out out/curves.png
python -m tools.plot --ranks out/run1           # what every rank measured: is one late?
"""

from pathlib import Path

import numpy as np

from dali_bgaug.figures import plt, save
from tools.bench.run_log import read_rows
from tools.cli import require, run, tool_parser
from tools.study.rank_plot import plot_ranks

LAST = ("lr", "images_per_s", "data_wait")
"""What comes after a method's own metrics."""
LABELS = {
    "feature_std": "feature_std (0: collapsed)",
    "lr": "learning rate",
    "images_per_s": "images/s",
    "data_wait": "share of time waiting for data",
}
COLUMNS = 2

Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def read_curves(folder: Path) -> Curves:
    """Steps and values of everything a run has logged, by name: the loss first, speed last."""
    rows = read_rows(folder / "log.jsonl")
    names = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    names -= {name for name in names if name.startswith("checkpoint_")}  # rare, and in seconds
    own = sorted(names - {"step", "epoch", "loss", *LAST})
    curves = {}
    for name in ("loss", *own, *LAST):
        points = [(row["step"], row[name]) for row in rows if name in row]
        curves[name] = (np.array([step for step, _ in points]), np.array([value for _, value in points]))
    return curves


def plot_runs(
    runs: list[Path], path: Path, chance: float | None = None, filled_at: int | None = None
) -> None:
    """Write a PNG with a panel for each quantity; a run's values are faint, their running mean is strong.

    chance: draw the loss of chance. filled_at: shade the steps before it, in which MoCo's queue still holds
    random vectors and the loss is lower than it means.
    """
    curves = {folder: read_curves(folder) for folder in runs}
    names = list(dict.fromkeys(name for run_curves in curves.values() for name in run_curves))
    names = [name for name in names if name not in LAST] + list(LAST)
    labels = _labels(runs)
    rows = -(-len(names) // COLUMNS)
    options = {"squeeze": False, "layout": "constrained", "sharex": True}
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(6 * COLUMNS, 2.6 * rows), **options)
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names):
        for number, folder in enumerate(runs):
            if name in curves[folder]:
                _draw(axis, *curves[folder][name], f"C{number % 10}", labels[folder], name)
        axis.set(ylabel=LABELS.get(name, name))
        axis.tick_params(labelbottom=True)
        axis.grid(alpha=0.3)
        if filled_at:
            shade = "queue fills" if name == "loss" else None
            axis.axvspan(0, filled_at, color="grey", alpha=0.15, linewidth=0, label=shade)
    if chance is not None:
        axes[0, 0].axhline(chance, color="grey", linestyle="--", linewidth=1, label="chance")
    axes[0, 0].legend(fontsize="small")
    for axis in axes.flat[max(0, len(names) - COLUMNS) : len(names)]:
        axis.set(xlabel="step")
    save(figure, path, dpi=100)


def _labels(runs: list[Path]) -> dict[Path, str]:
    """The folders' names, or their paths where two have one name."""
    names = [folder.resolve().name for folder in runs]
    return {folder: name if names.count(name) == 1 else str(folder) for folder, name in zip(runs, names)}


def _draw(axis: plt.Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str, name: str) -> None:
    width = 1 if name == "lr" else max(1, min(len(values) // 10, 50))
    if width > 1:
        axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
        label = f"{label} (mean of {width})"
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    # A run of one line is a point.
    axis.plot(steps[width - 1 :], mean, color=colour, label=label, marker="." if len(mean) == 1 else None)


def main() -> None:
    parser = tool_parser("tools.plot", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, default=Path("out/curves.png"), help="(%(default)s)")
    help_ = "of one run, what every rank measured; names those that make the others wait"
    parser.add_argument("--ranks", action="store_true", help=help_)
    args = parser.parse_args()
    if args.ranks:
        require(len(args.runs) == 1, f"--ranks: takes one run at a time, {len(args.runs)} are given")
        stragglers = plot_ranks(args.runs[0], args.out)
        print("\n".join(stragglers or ["no rank makes the others wait"]))
    else:
        plot_runs(list(dict.fromkeys(args.runs)), args.out)
    print(args.out)


if __name__ == "__main__":
    run(main)
