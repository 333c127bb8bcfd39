"""Tables of Markdown."""

from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], words: int | None = None) -> str:
    """A Markdown table.

    words: so many columns are left-aligned, the others, of numbers, right; None aligns none.
    """
    align = ["---"] * len(titles) if words is None else ["---"] * words + ["--:"] * (len(titles) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, align, *rows))
