"""Sizes of folders that others write to."""

from contextlib import suppress
from pathlib import Path


def used(folder: Path) -> int:
    """Bytes of whole files, while others come and go."""
    count = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            count += path.stat().st_size if path.suffix not in (".tmp", ".coming") else 0
    return count
