"""Figure of a run's ranks: which waits for data, whose device is slow, how much memory each takes."""

from pathlib import Path

import numpy as np

from dali_bgaug.figures import plt, save
from tools.bench.run_log import RankLog, read_ranks

LABELS = {
    "data_wait": "share of time waiting for data",
    "step_s": "other seconds of a step",
    "probe_ms": "ms of a fixed matrix product",
    "memory_mb": "peak GPU memory, MB",
}
LINES = 8
"""Ranks that are drawn one by one; of more, a band from the least to the greatest, the median, stragglers."""


def plot_ranks(run: Path, path: Path) -> list[str]:
    """Write a PNG with a panel for each measurement of a run's ranks; returns a line for each straggler."""
    log = read_ranks(run / "log.jsonl")
    stragglers = log.stragglers()
    options = {"squeeze": False, "layout": "constrained", "sharex": True}
    figure, axes = plt.subplots(len(log.values), 1, figsize=(9, 2.4 * len(log.values)), **options)
    for axis, name in zip(axes.flat, log.values):
        _draw(axis, log, log.values[name], list(stragglers))
        axis.set(ylabel=LABELS[name])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes.flat[0].set(title=run.resolve().name)
    axes.flat[0].legend(fontsize="small")
    axes.flat[-1].set(xlabel="step")
    save(figure, path, dpi=100)
    return [f"rank {rank}: {text}" for rank, text in stragglers.items()]


def _draw(axis: plt.Axes, log: RankLog, values: np.ndarray, stragglers: list[int]) -> None:
    marker = "." if len(log.steps) == 1 else None  # a run of one line is a point
    alone = list(range(log.count)) if log.count <= LINES else stragglers
    if log.count > LINES:
        axis.fill_between(
            log.steps, values.min(axis=1), values.max(axis=1), alpha=0.2, color="grey", label="all ranks"
        )
        axis.plot(log.steps, np.median(values, axis=1), color="black", marker=marker, label="median rank")
    for rank in alone:
        width = 2 if rank in stragglers else 1
        axis.plot(log.steps, values[:, rank], linewidth=width, marker=marker, label=f"rank {rank}")
