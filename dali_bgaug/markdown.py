"""Tables of Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int | None = None) -> str:
    """A Markdown table.

    words: so many columns are left-aligned, the others, of numbers, right; None aligns none.
    """
    align = ["---"] * len(titles) if words is None else ["---"] * words + ["--:"] * (len(titles) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, align, *rows))


def formatted(rows: Iterable[Mapping[str, Any]], columns: Sequence[tuple[str, str]]) -> str:
    """A Markdown table of results. columns: titles, and what stands below each as a format of its row."""
    return table([title for title, _ in columns], [[_cell(row, form) for _, form in columns] for row in rows])


def _cell(row: Mapping[str, Any], form: str) -> str:
    try:
        return form.format_map(row)
    except (KeyError, TypeError):  # a figure that was not measured, or is None
        return ""
