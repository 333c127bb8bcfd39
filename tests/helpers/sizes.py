"""Sizes of folders that others write to."""

from contextlib import suppress
from pathlib import Path


def used(folder: Path) -> int:
    """Bytes of whole files, while others come and go; `.room` keeps the account and is none of them."""
    count = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            count += (
                path.stat().st_size if path.suffix not in (".tmp", ".coming") and path.name != ".room" else 0
            )
    return count
