"""A report as pictures: bars by column, and ImageNet-C by corruption and severity."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_bgaug.errors import shown
from dali_bgaug.figures import plt, save
from train.evaluate.report.columns import GROUPS, Column
from train.evaluate.report.results import Corruptions
from train.evaluate.report.table import Row, Table

_INCH_A_BAR = 0.16
_INCH_A_COLUMN = 0.95  # at least, for its title
_INCH_A_LETTER = 0.075
_MAP_LETTERS = 44  # that fit beside one another over a map
_DPI = 110


def draw(table: Table, out: Path) -> list[Path]:
    """Write the pictures into a folder; returns their paths."""
    colours = {row.name: plt.cm.tab20(number % 20) for number, row in enumerate(table.rows)}
    bars = out / "report.png"
    _draw_bars(table, colours, bars)
    return [bars, *_draw_maps(table, out / "imagenet-c.png")]


# ---------------------------------------------------------------- bars


def _draw_bars(table: Table, colours: dict[str, tuple], path: Path) -> None:
    """A panel a group of columns, in each a bar a network, with standard errors; the paper's are diamonds."""
    groups = {group: [each for each in table.columns if each.group == group] for group in GROUPS}
    lines = _lines({group: columns for group, columns in groups.items() if columns})
    units = max(sum(map(_units, line.values())) + len(line) - 1 for line in lines)
    inches = max(_INCH_A_COLUMN, 0.4 + _INCH_A_BAR * len(table.rows))
    letters = int(inches / _INCH_A_LETTER)
    width = max(6.0, units * inches)
    labels = [_label(row, int((width - 0.7) / _INCH_A_LETTER)) for row in table.rows]
    size = (width, 2.9 * len(lines) + 0.2 * (len(labels) + sum(each.count("\n") for each in labels)) + 0.3)
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(lines), units)
    for number, line in enumerate(lines):
        start = 0
        for group, columns in line.items():
            axis = figure.add_subplot(grid[number, start : start + _units(columns)])
            start += _units(columns) + 1
            _draw_group(axis, table.rows, columns, colours)
            axis.set_title(group, fontsize=9, loc="left")
            axis.set(ylabel="%", xlim=(-0.5, len(columns) - 0.5))
            axis.set_xticks(
                range(len(columns)), [_broken(each.heading, letters) for each in columns], fontsize=8
            )
            axis.grid(alpha=0.3, axis="y")
    patches = [plt.Rectangle((0, 0), 1, 1, color=colours[row.name]) for row in table.rows]
    if any(row.paper for row in table.rows):
        patches.append(plt.Line2D([], [], color="black", marker="D", linestyle="", markersize=4))
        labels.append("the paper's, of the network whose bar it is on")
    figure.legend(patches, labels, loc="outside lower left", fontsize=8)
    save(figure, path, dpi=_DPI)


def _units(columns: Sequence[Column]) -> int:
    """The width of a panel, in columns: enough for its title."""
    return max(2, len(columns))


def _lines(groups: dict[str, list[Column]]) -> list[dict[str, list[Column]]]:
    """Groups side by side, as many as are no wider than the widest; a column apart."""
    most = max(9, *map(_units, groups.values())) if len(groups) > 1 else 0
    lines: list[dict[str, list[Column]]] = [{}]
    for group, columns in groups.items():
        taken = sum(_units(each) + 1 for each in lines[-1].values())
        if lines[-1] and taken + _units(columns) > most:
            lines.append({})
        lines[-1][group] = columns
    return lines


def _draw_group(
    axis: plt.Axes, rows: Sequence[Row], columns: Sequence[Column], colours: dict[str, tuple]
) -> None:
    bar = 0.84 / len(rows)
    for place, column in enumerate(columns):
        for number, row in enumerate(rows):
            x = place + (number - (len(rows) - 1) / 2) * bar
            cell = row.cells.get(column.key)
            if cell is not None and cell.mean is not None:
                error = None if cell.mean.error is None else 100 * cell.mean.error
                axis.bar(x, 100 * cell.mean.value, bar, color=colours[row.name], yerr=error, capsize=2)
            if column.key in row.paper:
                axis.plot(x, 100 * row.paper[column.key].value, "D", color="black", markersize=4)
    axis.axhline(0, color="black", linewidth=0.6)


def _broken(title: str, letters: int) -> str:
    """A title in lines of so many letters, three at most."""
    return textwrap.fill(shown(title), letters, max_lines=3, placeholder=" …")


def _label(row: Row, letters: int) -> str:
    seeds = len(row.networks)
    return _broken(row.name + (f" ({seeds} seeds)" if seeds > 1 else ""), letters)


# ---------------------------------------------------------------- corruption × severity


class _Map(NamedTuple):
    title: str
    values: Corruptions
    """Accuracy, or what there is more than the baseline's."""
    is_gain: bool


def _draw_maps(table: Table, path: Path) -> list[Path]:
    """Accuracy by corruption and severity, or, with a baseline, what others have more; none without sets like
    ImageNet-C."""
    maps = [found for column in table.columns for found in _maps_of(table, column)]
    if not maps:
        path.unlink(missing_ok=True)  # of an earlier report
        return []
    columns = min(len(maps), 4)
    rows = -(-len(maps) // columns)
    most = max(len(each.values) for each in maps)
    size = (4.1 * columns, rows * (0.27 * most + 1.2 + 0.15 * max(each.title.count("\n") for each in maps)))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(maps) :]:
        axis.remove()
    gains = [
        abs(100 * v) for each in maps if each.is_gain for row in each.values.values() for v in row.values()
    ]
    for axis, each in zip(axes.flat, maps):
        _draw_map(axis, each, max(gains, default=1) or 1)
    save(figure, path, dpi=_DPI)
    return [path]


def _maps_of(table: Table, column: Column) -> list[_Map]:
    base = None if table.baseline is None else table.baseline.cells.get(column.key)
    maps = []
    for row in table.rows:
        values = row.cells[column.key].table if column.key in row.cells else {}
        is_gain = base is not None and column.key in row.gains
        if is_gain:
            values = _more(values, base.table)
        if values:
            what = "points over the baseline" if is_gain else "%"
            maps.append(
                _Map(f"{shown(column.key)}, {what}\n{_broken(row.name, _MAP_LETTERS)}", values, is_gain)
            )
    return maps


def _more(values: Corruptions, base: Corruptions) -> Corruptions:
    return {
        corruption: {
            level: value - base[corruption][level]
            for level, value in levels.items()
            if level in base[corruption]
        }
        for corruption, levels in values.items()
        if corruption in base
    }


def _draw_map(axis: plt.Axes, found: _Map, largest: float) -> None:
    levels = sorted({level for cells in found.values.values() for level in cells})
    grid = np.full((len(found.values), len(levels)), np.nan)
    for y, cells in enumerate(found.values.values()):
        for level, value in cells.items():
            grid[y, levels.index(level)] = 100 * value
    limits = (
        {"cmap": "RdBu", "vmin": -largest, "vmax": largest} if found.is_gain else {"vmin": 0, "vmax": 100}
    )
    image = axis.imshow(grid, aspect="auto", **limits)
    for (y, x), value in np.ndenumerate(grid):
        if not np.isnan(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            text = f"{round(value, 1) + 0.0:+.1f}" if found.is_gain else f"{value:.0f}"
            axis.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axis.set_xticks(range(len(levels)), levels)
    axis.set_yticks(range(len(grid)), [name.replace("_", " ") for name in found.values], fontsize=8)
    axis.set(xlabel="severity")
    axis.set_title(found.title, fontsize=9)
