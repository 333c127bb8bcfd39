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
FOLDERS = ("mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_t", "only_bg_b")
TESTS = ("few_labels", "fgsm", "corrupted")
"""Other tests; earlier results have none of them, and `corrupted` takes a package."""
MEASURED = ("accuracy", "gap", *FOLDERS, *TESTS)

Row = dict[str, Any]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means over seeds and their standard errors, in the order in which conditions first come.

    Returns:
        For each condition `method`, `background`, `seeds`; for each of MEASURED that all rows have `[mean,
        standard error]`, the latter None for one seed; with a background also `accuracy_gain` and `gap_gain`,
        of the differences to the runs of the same method and seed without.
    """
    conditions = list(dict.fromkeys((row["method"], row["background"]) for row in rows))
    measured = [name for name in MEASURED if all(name in row for row in rows)]
    lines = []
    for method, background in conditions:
        own = _by_seed(rows, method, background)
        line = {"method": method, "background": background, "seeds": len(own)}
        line |= {name: mean([row[name] for row in own.values()]) for name in measured}
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
    seconds = [row["seconds"] for row in result["rows"] if "seconds" in row] or [0]
    runs = sum(row["method"] != "untrained" for row in result["rows"])
    missing = result.get("missing", [])
    head = [
        f"# Less reliance on backgrounds{' in photos' if 'source' in result else ''}?",
        f"    {result['command']}",
        f"{describe(result['machine'])}; {runs} runs of {np.mean(seconds):.0f} seconds, with their "
        f"probes, {result['at_once']} at a time.",
        *([textwrap.fill(_lacking(missing, runs), 118)] if missing else []),
        textwrap.fill(_description(result), 118),
        f"![Accuracy and BG-Gap of every run]({figure})",
    ]
    lines = result["summary"]
    titles, names = ("accuracy %", "gain", "BG-Gap", "gain"), ("accuracy", "accuracy_gain", "gap", "gap_gain")
    rows = [[*_what(row), *(_cell(row, name) for name in names), str(row["seeds"])] for row in lines]
    main = markdown.table(("method", "backgrounds", *titles, "seeds"), rows, words=2)
    gains = (
        "Gains are differences to the same method without background augmentation, seed by seed. Untrained "
        "is the network as MoCo-v2 begins with it."
    )
    tail = [
        textwrap.fill(gains, 118),
        "Accuracy in every folder of the challenge, in percent:",
        _table(lines, FOLDERS),
    ]
    if tests := [name for name in TESTS if name in lines[0]]:
        tail += [textwrap.fill(_tests(result), 118), _table(lines, tests)]
    return "\n\n".join([*head, main, *tail, "What we make of ours is in `benchmarks/notes.md`."]) + "\n"


def _description(result: dict[str, Any]) -> str:
    photos, source = result["photos"], result.get("source")
    what = (
        f"photos of {source['data']}, with masks of the detector {source['detector']}"
        + (f" ({source['weights']})" if "weights" in source else "")
        if source
        else "photos of the demo set, whose backgrounds go with the class in "
        f"{result['settings']['correlation']:.0%} of them"
    )
    return (
        f"Networks are pre-trained, without labels, on {photos['train']} {what}. A linear "
        "classifier on the frozen backbone (features of central crops, batch norm in evaluation mode, the "
        f"rate chosen on a tenth of the training photos) is tested on {photos['test']} others. Accuracy is "
        "that on photos as they are; BG-Gap is the accuracy with backgrounds of other photos of the class "
        "minus that with backgrounds of any class, in points, lower is better. Both with the standard error "
        f"over {result['seeds']} seeds. Backgrounds are replaced with probability {result['p']}, negatives "
        f"matched with the same. Recipes: `configs/experiment/`{_sizes(result)}."
    )


def _sizes(result: dict[str, Any]) -> str:
    """Networks and epochs of the recipes; earlier results do not say."""
    if "recipes" not in result:
        return ""
    recipes = result["recipes"]
    epochs = ", ".join(f"{NAMES[method]} {recipe['epochs']}" for method, recipe in recipes.items())
    first = recipes["moco_v2"]
    return f" ({first['backbone']}, views of {first['data']['crop']['size']} pixels, epochs: {epochs})"


def _lacking(missing: Sequence[Sequence[Any]], runs: int) -> str:
    names = [
        f"{NAMES[method]} {BACKGROUNDS[background]}, seed {seed}" for method, background, seed in missing
    ]
    return f"**Not finished**: {len(missing)} of {len(missing) + runs} runs are missing ({'; '.join(names)})."


def _tests(result: dict[str, Any]) -> str:
    text = (
        f"Accuracy in percent of a classifier fitted on {result['photos']['few']} labels, a tenth of each "
        "class (few labels), and of that on all labels after one step of the fast gradient sign method, of "
        f"{result['epsilon']} grey levels of 255 (fgsm), "
    )
    if "corrupted" in result["summary"][0]:
        return text + "and of corrupted copies, the mean over four corruptions in two severities:"
    return text + "none of corrupted copies, for want of the package that `tools.corruptions` takes:"


def _table(lines: Sequence[Row], names: Sequence[str]) -> str:
    rows = [[*_what(row), *(_cell(row, name) for name in names)] for row in lines]
    titles = [name.replace("_", " ") for name in names]
    return markdown.table(("method", "backgrounds", *titles), rows, words=2)


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
