"""A report as Markdown."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from dali_bgaug import markdown
from dali_bgaug.errors import shown, some
from train.evaluate.report.columns import GROUPS, Column
from train.evaluate.report.results import PHOTOS
from train.evaluate.report.table import Cell, Mean, Row, Table

_WIDTH = 118
_NONE = "–"


def page(table: Table, pictures: Sequence[str], ignored: int) -> str:
    """The page. pictures: files beside it. ignored: JSON files that were no results."""
    what = (
        "Percent; the mean over seeds ± its standard error, where there are several. Shape bias is the share "
        "of decisions for the shape, BG-gap is in points, mCE in percent of AlexNet's. ↓: lower is better."
    )
    parts = ["# Results", textwrap.fill(what, _WIDTH), *(f"![{name}]({name})" for name in pictures)]
    for group in GROUPS:
        columns = [column for column in table.columns if column.group == group]
        if columns:
            parts += [f"## {group}", *_group(table, columns)]
    parts += ["## How it was measured", _measured(table), "## Networks", _networks(table)]
    parts.append(f"{ignored} JSON files beside the results were none: cards, configs and the like.")
    if table.notes:
        parts += [
            "## Notes",
            "\n".join(f"{number}. {_text(note)}" for number, note in enumerate(table.notes, 1)),
        ]
    return "\n\n".join(parts) + "\n"


def _group(table: Table, columns: Sequence[Column]) -> list[str]:
    """The tables of some columns: values, with the paper's below each network's, and gains."""
    keys = [column.key for column in columns]
    rows = []
    for row in table.rows:
        if not row.cells.keys() & set(keys):
            continue
        rows.append([_text(row.name), str(len(row.networks)), *(_cell(row, key) for key in keys)])
        if row.paper.keys() & set(keys):
            rows.append(["*the paper's*", "", *(_figure(row, key) for key in keys)])
    titles = [_text(column.heading) for column in columns]
    tables = [markdown.table(["network", "seeds", *titles], rows, words=1)]
    base = table.baseline
    gained = [column for column in columns if any(column.key in row.gains for row in table.rows)]
    if base is not None and gained:
        rows = [
            [_text(row.name), *(_gain(row.gains.get(column.key)) for column in gained)]
            for row in table.rows
            if any(column.key in row.gains for column in gained)
        ]
        titles = [_text(column.heading) for column in gained]
        tables += [
            f"Gains over {_text(base.name)}, in points:",
            markdown.table(["network", *titles], rows, 1),
        ]
    return tables


def _cell(row: Row, key: str) -> str:
    cell = row.cells.get(key)
    if cell is None:
        return _NONE
    marks = _marks(cell.notes)
    if cell.mean is None:
        return f"{_NONE}{marks}"
    fewer = f" (n={len(cell.measured)})" if len(cell.measured) != len(row.networks) else ""
    return _number(cell.mean, "") + fewer + marks


def _number(mean: Mean, sign: str) -> str:
    error = "" if mean.error is None else f" ± {100 * mean.error:.1f}"
    value = round(100 * mean.value, 1) + 0.0  # -0.0 becomes 0.0
    return f"{value:{sign}.1f}{error}"


def _gain(gain: Mean | None) -> str:
    return _NONE if gain is None else _number(gain, "+")


def _figure(row: Row, key: str) -> str:
    figure = row.paper.get(key)
    return _NONE if figure is None else f"{100 * figure.value:.1f}{_marks(row.paper_notes[key])}"


def _marks(notes: Sequence[int]) -> str:
    return "".join(f" [{note}]" for note in dict.fromkeys(notes))


def _measured(table: Table) -> str:
    """What is usual in columns; those that are alike share a row."""
    alike: dict[tuple[str, str], list[str]] = {}
    for column in table.columns:
        cells = [row.cells[column.key] for row in table.rows if column.key in row.cells]
        usual = {name: _usual(cells, name) for name in dict.fromkeys(n for c in cells for n in c.facts)}
        photos = usual.pop(PHOTOS, _NONE)
        how = "; ".join(f"{name}: {value}" for name, value in usual.items() if value != _NONE)
        alike.setdefault((photos, how), []).append(column.title)
    rows = [[_text("; ".join(titles)), photos, _text(how)] for (photos, how), titles in alike.items()]
    return markdown.table(["columns", "photos", "most were measured so"], rows)


def _usual(cells: Sequence[Cell], name: str) -> str:
    return Counter(cell.facts.get(name, _NONE) for cell in cells).most_common(1)[0][0]


def _networks(table: Table) -> str:
    """Where the rows come from."""
    rows = []
    for row in table.rows:
        network = row.network
        changed = some([f"{key}={value}" for key, value in network.changed.items()], 6)
        recipe = network.recipe or ("none like it" if network.traits else "not known")
        rows.append([row.name, ", ".join(row.networks), recipe, changed or _NONE])
    titles = ["network", "seeds", "recipe in configs/", "what it has otherwise"]
    return markdown.table(titles, [[_text(cell) for cell in row] for row in rows])


def _text(text: str) -> str:
    """Words of a file or user in a cell."""
    return shown(text).replace("|", "\\|")
