"""Lists people give, one name a line: how their lines are read, and lists of the photos to take.

Read strictly: a line that is not understood is an error that shows it. Names are compared in Unicode's normal
form C, since file systems differ in theirs.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_bgaug.errors import UserError, some
from dali_bgaug.photo_tree import normal

LONGEST = 80  # characters of a line in an error


class Line(NamedTuple):
    """A line of a list."""

    number: int
    """From 1."""
    text: str

    def __str__(self) -> str:
        return f"line {self.number} '{self.text[:LONGEST]}'"


class Names:
    """Names that a list's line may mean, however it spells them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._spelled = {name: name for name in names}
        for name in [name for name in self._spelled if not name.isascii()]:
            self._spelled.setdefault(normal(name), name)

    def find(self, text: str) -> str | None:
        """The name that is meant."""
        if (found := self._spelled.get(text)) is not None:
            return found
        for tried in (text, text.strip(), text.strip().removeprefix("./")):
            if (found := self._spelled.get(tried, self._spelled.get(normal(tried)))) is not None:
                return found
        return None


class Photos:
    """Photos that a list's line may mean, by path or by the file's name alone."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._paths = Names(keys)
        self._files = Names(file_of(key) for key in keys)

    def find(self, text: str) -> str | None:
        """The path, or else the name, of a photo."""
        return (self._paths if "/" in text else self._files).find(text)


def read_lines(path: Path, option: str) -> list[Line]:
    """The lines that are not blank, with a byte-order mark or without."""
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}={path}: cannot be read ({error}); give a text file in UTF-8") from error
    lines = [Line(number, text) for number, text in enumerate(texts, 1) if text.strip()]
    if not lines:
        raise UserError(f"{option}={path}: is empty; give one line a class or photo")
    return lines


def read_subset(
    path: Path, keys: Sequence[str], left_out: Collection[str] = (), option: str = "--subset"
) -> np.ndarray:
    """The photos a list names (paths, or names of files; one a line), as sorted indices, int64 [M].

    left_out: photos that were found to be bad; a list of others may name them.
    """
    lines = read_lines(path, option)
    option = f"{option}={path}"
    photos, bad = Photos(keys), Photos(left_out)
    found = [photos.find(line.text) for line in lines]
    wanted = set(found)
    named = zip(lines, found, strict=True)
    if unknown := [line for line, name in named if name is None and not bad.find(line.text)]:
        raise UserError(
            f"{option}: {len(unknown)} of its {len(lines)} photos are not in the stores: "
            f"{some(list(map(str, unknown)))}; take them off the list, or make masks and tiles of them"
        )
    names = wanted.difference(keys)  # what is a path means that photo, and none of this name elsewhere
    by_name: dict[str, str] = {}
    for key in keys:
        name = file_of(key)
        if key not in wanted and name in names and by_name.setdefault(name, key) != key:
            raise UserError(f"{option}: {name} may be {by_name[name]} or {key}; give paths in place of names")
    chosen = [index for index, key in enumerate(keys) if key in wanted or file_of(key) in names]
    return np.array(chosen, np.int64)


def unmatched(lines: list[Line], what: str) -> str:
    """The end of a message: lines that name nothing, if there are some."""
    if not lines:
        return ""
    return f" ({len(lines)} of its lines name no {what}: {some(list(map(str, lines)))})"


def file_of(key: str) -> str:
    return key.rsplit("/", 1)[-1]
