"""The experiment's result: means and standard errors, as a table, a figure and a page."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dali_bgaug import markdown
from dali_bgaug.figures import plt, save
from tools.bench.machine import describe

NAMES = {"moco_v2": "MoCo-v2", "byol": "BYOL", "swav": "SwAV", "untrained": "untrained"}
BACKGROUNDS = {"none": "none", "rm": "BG_RM", "random": "BG_Random", "swaps": "BG_Swaps"}
MEASURED = ("accuracy", "gap", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_t")

Row = dict[str, Any]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means over seeds and their standard errors, in the order in which conditions first come.

    Returns:
        For each condition `method`, `background`, `seeds`; for each of MEASURED `[mean, standard error]`, the
        latter None for one seed; with a background also `accuracy_gain` and `gap_gain`, of the differences to
        the runs of the same method and seed without.
    """
    conditions = list(dict.fromkeys((row["method"], row["background"]) for row in rows))
    lines = []
    for method, background in conditions:
        own = _by_seed(rows, method, background)
        line = {"method": method, "background": background, "seeds": len(own)}
        line |= {name: mean([row[name] for row in own.values()]) for name in MEASURED}
        plain = _by_seed(rows, method, "none")
        if background != "none" and plain.keys() >= own.keys():
            for name in ("accuracy", "gap"):
                line[f"{name}_gain"] = mean([row[name] - plain[seed][name] for seed, row in own.items()])
        lines.append(line)
    return lines


def _by_seed(rows: Sequence[Row], method: str, background: str) -> dict[int, Row]:
    return {row["seed"]: row for row in rows if (row["method"], row["background"]) == (method, background)}


def mean(values: Sequence[float]) -> list[float | None]:
    """The mean and its standard error, None of one value."""
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return [round(float(np.mean(values)), 4), None if error is None else round(error, 4)]


def page(result: dict[str, Any], figure: str) -> str:
    """The result as a Markdown page. figure: the file beside it."""
    photos = result["photos"]
    seconds = [row["seconds"] for row in result["rows"] if "seconds" in row] or [0]
    what = (
        f"Networks are pre-trained, without labels, on {photos['train']} photos of the demo set, whose "
        f"backgrounds go with the class in {result['settings']['correlation']:.0%} of them. A linear "
        "classifier on the frozen backbone (features of central crops, batch norm in evaluation mode, the "
        f"rate chosen on a tenth of the training photos) is tested on {photos['test']} others. Accuracy is "
        "that on photos as they are; BG-Gap is the accuracy with backgrounds of other photos of the class "
        "minus that with backgrounds of any class, in points, lower is better. Both with the standard error "
        f"over {result['seeds']} seeds. Backgrounds are replaced with probability {result['p']}, negatives "
        "matched with the same. Recipes: `configs/experiment/`."
    )
    head = [
        "# Less reliance on backgrounds?",
        f"    {result['command']}",
        f"{describe(result['machine'])}; {len(seconds)} runs of {np.mean(seconds):.0f} seconds, with their "
        f"probes, {result['at_once']} at a time.",
        textwrap.fill(what, 118),
        f"![Accuracy and BG-Gap of every run]({figure})",
    ]
    lines = result["summary"]
    titles, names = ("accuracy %", "gain", "BG-Gap", "gain"), ("accuracy", "accuracy_gain", "gap", "gap_gain")
    rows = [[*_what(row), *(_cell(row, name) for name in names), str(row["seeds"])] for row in lines]
    main = markdown.table(("method", "backgrounds", *titles, "seeds"), rows, words=2)
    titles, names = [name.replace("_", " ") for name in MEASURED[2:]], MEASURED[2:]
    rows = [[*_what(row), *(_cell(row, name) for name in names)] for row in lines]
    splits = markdown.table(("method", "backgrounds", *titles), rows, words=2)
    gains = (
        "Gains are differences to the same method without background augmentation, seed by seed. Untrained "
        "is the network as MoCo-v2 begins with it."
    )
    tail = [
        textwrap.fill(gains, 118),
        "Accuracy in every folder of the challenge, in percent:",
        splits,
        "What we make of ours is in `benchmarks/notes.md`.",
    ]
    return "\n\n".join([*head, main, *tail]) + "\n"


def _what(row: Row) -> list[str]:
    return [NAMES[row["method"]], "" if row["method"] == "untrained" else BACKGROUNDS[row["background"]]]


def _cell(row: Row, name: str) -> str:
    if name not in row:
        return ""
    middle, error = row[name]
    sign = "+" if name.endswith("_gain") else ""
    return f"{100 * middle:{sign}.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def draw(result: dict[str, Any], path: Path) -> None:
    """A PNG of accuracy and BG-Gap of every condition: seeds as points, means with standard errors."""
    lines = result["summary"]
    labels = [" ".join(_what(row)).strip() for row in lines]
    size = (11, 0.42 * len(lines) + 1.3)
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    colours = {method: f"C{number}" for number, method in enumerate(("moco_v2", "byol", "swav"))}
    titles = {"accuracy": "linear accuracy, %", "gap": "BG-Gap, points (lower is better)"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for place, row in enumerate(lines):
            own = _by_seed(result["rows"], row["method"], row["background"])
            values = [100 * each[name] for each in own.values()]
            colour = colours.get(row["method"], "grey")
            axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=5)
            middle, error = 100 * row[name][0], 100 * (row[name][1] or 0)
            axis.errorbar(middle, place, xerr=error, fmt="|", color=colour, capsize=4, markersize=14)
        axis.set(xlabel=title)
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(lines)), labels)
    axes[0].invert_yaxis()
    save(figure, path, dpi=110)
