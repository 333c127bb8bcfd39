"""The table of a report: a row a network, a column a measurement, means over seeds, gains, footnotes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dali_bgaug.errors import UserError, some
from dali_bgaug.files import digest
from train.evaluate.report.columns import Column, in_order
from train.evaluate.report.paper import Figure, figures_of
from train.evaluate.report.recipes import changes
from train.evaluate.report.results import ORIENTATION, PHOTOS, UNREADABLE, Corruptions, Measurement
from train.evaluate.report.runs import Network

_APPLY = "robustness --orientation=apply turns photos upright, as background-gap does"


class Mean(NamedTuple):
    """A mean, or a difference of two."""

    value: float
    error: float | None
    """Its standard error; None of one value."""


@dataclass
class Cell:
    """What seeds of one network have in one column."""

    measured: list[Measurement]
    """By seed."""
    notes: list[int] = field(default_factory=list)
    """Numbers of footnotes, from 1."""

    @property
    def mean(self) -> Mean | None:
        """Over seeds; None where they were not measured alike."""
        alike = len({str(comparable(each.facts)) for each in self.measured}) == 1
        return mean_of([each.value for each in self.measured]) if alike else None

    @property
    def facts(self) -> dict[str, str]:
        """How it was measured; where seeds differ, all of what they say."""
        names = dict.fromkeys(name for each in self.measured for name in each.facts)
        said = {name: [each.facts.get(name, "–") for each in self.measured] for name in names}
        return {name: " and ".join(dict.fromkeys(values)) for name, values in said.items()}

    @property
    def table(self) -> Corruptions:
        """Means over seeds of what all have; {} where there is no such table, or no mean."""
        tables = [each.table for each in self.measured if each.table and self.mean]
        first = tables[0] if tables else {}
        return {
            corruption: {
                level: float(np.mean([each[corruption][level] for each in tables]))
                for level in levels
                if all(level in each.get(corruption, {}) for each in tables)
            }
            for corruption, levels in first.items()
        }


@dataclass
class Row:
    """A network."""

    networks: dict[str, Network]
    """By seed."""
    name: str
    cells: dict[str, Cell] = field(default_factory=dict)
    gains: dict[str, Mean] = field(default_factory=dict)
    """Over the baseline, by column."""
    paper: dict[str, Figure] = field(default_factory=dict)
    """The paper's figures, by column."""
    paper_notes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        """The first seed's."""
        return next(iter(self.networks.values()))


@dataclass
class Table:
    """A report's content."""

    columns: list[Column]
    rows: list[Row]
    baseline: Row | None
    notes: list[str] = field(default_factory=list)
    """Footnotes; number 1 is the first."""


def mean_of(values: Sequence[float]) -> Mean:
    """The mean and its standard error: the deviation (n - 1) over the root of n."""
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(float(np.mean(values)), error)


def difference(of: Mean, base: Mean) -> Mean:
    """The difference of two means of separate runs; without an error unless both have one."""
    known = of.error is not None and base.error is not None
    return Mean(of.value - base.value, (of.error**2 + base.error**2) ** 0.5 if known else None)


def comparable(facts: Mapping[str, str]) -> dict[str, str]:
    """Facts in which numbers that are averaged or subtracted must be the same: all but counts of photos,
    which footnotes tell."""
    return {name: value for name, value in facts.items() if name not in (PHOTOS, UNREADABLE)}


def make_table(
    measurements: Sequence[Measurement],
    baseline: str | None = None,
    names: Mapping[Path, str] | None = None,
    paper: bool = False,
) -> Table:
    """Sort measurements into a table.

    Args:
        measurements: in the order in which their rows shall stand.
        baseline: the name of a row.
        names: of rows, by the arguments that their results were found under.
        paper: the paper's figures, too.

    Raises:
        UserError: two results for one seed and column; no such baseline.
    """
    table = Table(in_order({each.column for each in measurements}), _rows(measurements, names or {}), None)
    for column in table.columns:
        _note_differences(table, column)
    if baseline is not None:
        table.baseline = _find_row(table.rows, baseline)
        for row in table.rows:
            if row is not table.baseline:
                _subtract(table, row, table.baseline)
    for row in table.rows if paper else []:
        for key, figure in figures_of(row.network).items():
            if any(column.key == key for column in table.columns):
                row.paper[key] = figure
                row.paper_notes[key] = [_note(table, figure.source)]
    if paper:
        _note_sizes(table)
    return table


def _rows(measurements: Sequence[Measurement], names: Mapping[Path, str]) -> list[Row]:
    rows: dict[tuple[str, ...], Row] = {}
    titles = {column.key: column.title for column in in_order({each.column for each in measurements})}
    for each in measurements:
        network = each.network
        name = names.get(each.given)
        row = rows.setdefault(network.key, Row({}, name or network.name))
        row.name = name or row.name
        row.networks.setdefault(network.seed, network)
        cell = row.cells.setdefault(each.column, Cell([]))
        twice = [other for other in cell.measured if other.network.seed == network.seed]
        if not twice:
            cell.measured.append(each)
        elif differences := _differences(twice[0], each):
            raise UserError(
                f"{twice[0].file} and {each.file}: both have {titles[each.column]} of {row.name}, seed "
                f"{network.seed}, but differ ({differences}); give one of them alone, or delete one"
                + (f"; {_APPLY}" if ORIENTATION in differences else "")
            )
    for row in rows.values():
        row.networks = dict(sorted(row.networks.items(), key=lambda item: _by_number(item[0])))
        for cell in row.cells.values():
            cell.measured.sort(key=lambda each: _by_number(each.network.seed))
    _tell_apart(list(rows.values()))
    return list(rows.values())


def _differences(one: Measurement, other: Measurement) -> str:
    """What two results differ in, values being told of those that were measured alike; "" where nothing."""
    names = dict.fromkeys([*one.facts, *other.facts])
    said = {name: (one.facts.get(name, "–"), other.facts.get(name, "–")) for name in names}
    words = [f"{name}: {first} and {second}" for name, (first, second) in said.items() if first != second]
    if not words and one.value != other.value:
        words = [f"value: {100 * one.value:g} and {100 * other.value:g} %"]
    return "; ".join(words)


def _by_number(seed: str) -> tuple[int, str]:
    return len(seed), seed


def _tell_apart(rows: Sequence[Row]) -> None:
    """Give rows of one name what they differ in: what was done to them, keys of their configs, or else their
    weights."""
    for differ_in in (_own_variants, _own_traits, _own_mark):
        for name, count in Counter(row.name for row in rows).items():
            networks = [row.network for row in rows if row.name == name]
            for row in [row for row in rows if row.name == name and count > 1]:
                row.name += differ_in(row.network, [each for each in networks if each is not row.network])


def _own_variants(network: Network, others: Sequence[Network]) -> str:
    """Of rows that `--name` gave one name."""
    differ = any(other.variants != network.variants for other in others)
    return "".join(f", {variant}" for variant in network.variants) if differ else ""


def _own_traits(network: Network, others: Sequence[Network]) -> str:
    keys = sorted({key for other in others for key in changes(network.traits, other.traits)})
    words = some([f"{key}={network.traits[key]}" for key in keys], 3)
    return f" ({words})" if words else ""


def _own_mark(network: Network, others: Sequence[Network]) -> str:
    return f" ({network.mark or digest(network.key)[:8]})"


def _find_row(rows: Sequence[Row], name: str) -> Row:
    for row in rows:
        if row.name == name:
            return row
    there = "; ".join(row.name for row in rows)
    raise UserError(f"--baseline={name}: no such network in the results; there are {there}")


def _note(table: Table, text: str) -> int:
    """The number of a footnote."""
    if text not in table.notes:
        table.notes.append(text)
    return table.notes.index(text) + 1


def _note_differences(table: Table, column: Column) -> None:
    """Footnotes of cells that were measured otherwise than most of their column, or seed by seed."""
    cells = [row.cells[column.key] for row in table.rows if column.key in row.cells]
    for name in dict.fromkeys(name for cell in cells for name in cell.facts):
        usual = Counter(cell.facts.get(name, "–") for cell in cells).most_common(1)[0][0]
        for cell in cells:
            own = cell.facts.get(name, "–")
            if own != usual:
                cell.notes.append(_note(table, f"{name}: {own}; the column's others: {usual}"))
    for cell in cells:
        if cell.mean is None:
            text = "seeds were not measured alike, so there is no mean of them"
            differ = {key: value for key, value in comparable(cell.facts).items() if " and " in value}
            said = "; ".join(f"{key}: {value}" for key, value in differ.items())
            cell.notes.append(_note(table, f"{text} ({said})"))


def _note_sizes(table: Table) -> None:
    """Footnotes of columns measured on other numbers of photos than the public set has."""
    for column in table.columns:
        for row in table.rows:
            cell = row.cells.get(column.key)
            photos = cell.facts.get(PHOTOS) if cell and column.key in row.paper else None
            if photos is not None and column.photos is not None and photos != str(column.photos):
                text = f"the paper's is of {column.photos} photos, ours of {photos}"
                row.paper_notes[column.key].append(_note(table, text))


def _subtract(table: Table, row: Row, base: Row) -> None:
    for key, cell in row.cells.items():
        other = base.cells.get(key)
        if other is None or cell.mean is None or other.mean is None:
            continue
        if comparable(cell.facts) == comparable(other.facts):
            row.gains[key] = difference(cell.mean, other.mean)


def as_json(table: Table) -> dict[str, Any]:
    """A table as values for JSON; numbers are shares, gains differences of shares."""
    return {
        "baseline": table.baseline.name if table.baseline else None,
        "columns": [
            {"key": each.key, "title": each.title, "group": each.group, "lower_is_better": each.lower}
            for each in table.columns
        ],
        "rows": [_row_json(row) for row in table.rows],
        "notes": table.notes,
    }


def _row_json(row: Row) -> dict[str, Any]:
    network = row.network
    cells = {}
    for key, cell in row.cells.items():
        mean, error = _rounded(cell.mean)
        files = {each.network.seed: str(each.file) for each in cell.measured}
        values = {each.network.seed: each.value for each in cell.measured}
        own = {"mean": mean, "standard_error": error, "seeds": len(values), "values": values}
        cells[key] = own | {"facts": cell.facts, "notes": cell.notes, "files": files}
        if cell.table:
            means = cell.table.items()
            cells[key]["table"] = {name: {k: round(v, 5) for k, v in row.items()} for name, row in means}
    gains = {key: _rounded(gain) for key, gain in row.gains.items()}
    return {
        "name": row.name,
        "recipe": network.recipe,
        "changed": network.changed,
        "seeds": list(row.networks),
        "cells": cells,
        "gains": {key: {"gain": gain, "standard_error": error} for key, (gain, error) in gains.items()},
        "paper": {key: {"value": each.value, "source": each.source} for key, each in row.paper.items()},
    }


def _rounded(mean: Mean | None) -> tuple[float | None, float | None]:
    if mean is None:
        return None, None
    return round(mean.value, 5), None if mean.error is None else round(mean.error, 5)
