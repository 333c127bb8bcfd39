"""An ablation's result: means over seeds beside the paper's numbers, as a table and a page."""

import textwrap
from collections.abc import Sequence
from typing import Any

from dali_bgaug import markdown
from tools.bench.machine import describe
from tools.study.experiment_page import mean

UNKNOWN = "–"


def summary(table: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table, with means over seeds.

    Args:
        table: `name`, `overrides`, `paper` and `source` of each row.
        rows: `name`, `seed` and numbers (shares) of each run.

    Returns:
        For each row what it came with, `seeds`, how many there are, and `ours`, by column `[mean, standard
        error]`, the latter None for one seed.
    """
    lines = []
    for line in table:
        own = [row for row in rows if row["name"] == line["name"]]
        columns = [key for key in (own[0] if own else {}) if key not in ("name", "seed")]
        values = {column: [row[column] for row in own if row[column] is not None] for column in columns}
        ours = {column: mean(found) for column, found in values.items() if found}
        lines.append({**line, "seeds": len(own), "ours": ours})
    return lines


def page(result: dict[str, Any]) -> str:
    """The result as a Markdown page."""
    lines = result["summary"]
    found = [column for line in lines for column in (*line["ours"], *line["paper"])]
    columns = list(dict.fromkeys(found)) or result["evaluate"]
    titles = [title for column in columns for title in (f"{column.replace('_', ' ')} %", "the paper's")]
    rows = [
        [line["name"], *(cell for column in columns for cell in _cells(line, column)), str(line["seeds"])]
        for line in lines
    ]
    words = " ".join(result["words"])
    what = (
        f"{result['about']} Every row is `{result['recipe']}`"
        + (f" with `{words}`" if words else "")
        + ", but for what the last table says. Percent, the mean over seeds with its standard error. "
        f"{UNKNOWN}: not measured, or the paper's number is not known here. The paper's are of its own "
        "recipe, whole, on ImageNet: those of a smaller run can be compared with them in sign at most."
    )
    changes = [
        [line["name"], " ".join(f"`{word}`" for word in as_words(line["overrides"])) or "nothing"]
        for line in lines
    ]
    parts = [
        f"# {result['title']}",
        f"    {result['command']}",
        f"{describe(result['machine'])}.",
        textwrap.fill(what, 118),
        markdown.table(["row", *titles, "seeds"], rows, words=1),
        *_sources(lines, columns),
        markdown.table(["row", "what it has otherwise"], changes),
    ]
    return "\n\n".join(parts) + "\n"


def _cells(line: dict[str, Any], column: str) -> tuple[str, str]:
    """Our number and the paper's."""
    paper = line["paper"].get(column)
    theirs = UNKNOWN if paper is None else f"{paper:.1f}"
    if column not in line["ours"]:
        return UNKNOWN, theirs
    middle, error = line["ours"][column]
    return f"{100 * middle:.1f}" + ("" if error is None else f" ± {100 * error:.1f}"), theirs


def _sources(lines: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """Where the paper's numbers of the table stand, as a list."""
    found: dict[str, list[str]] = {}
    for line in lines:
        own = [f"{value:.1f}" for column, value in line["paper"].items() if column in columns]
        found.setdefault(line["source"], []).extend(own)
    texts = [
        textwrap.fill(f"* {', '.join(values)}: {source}", 118) for source, values in found.items() if values
    ]
    return ["Where the paper's numbers are from:\n\n" + "\n".join(texts)] if texts else []


def as_words(overrides: list[str] | dict[str, Any], prefix: str = "") -> list[str]:
    """Overrides as `key=value`."""
    if isinstance(overrides, list):
        return overrides
    found = []
    for key, value in overrides.items():
        name = f"{prefix}{key}"
        found += as_words(value, f"{name}.") if isinstance(value, dict) else [f"{name}={value}"]
    return found
