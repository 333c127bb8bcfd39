"""Photo listing: one rule, for the tools and evaluation, of which files are photos (docs/data.md).

A photo is a file whose name ends like one, in the folder or below it. Links are followed, to files and to
folders, but for one that leads back to a folder it lies in. What is not taken is counted by kind; what cannot
be looked at is an error.
"""

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dali_bgaug.errors import UserError, shown, some
from dali_bgaug.files import require_folder

JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")
SYSTEM_FOLDERS = frozenset(
    ["@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found"]
)
"""Folders that file servers, desktops and archives put between photos; in lower case."""
PARTS = frozenset(["train", "training", "val", "valid", "validation", "test", "testing"])
"""Names of a set's parts, which are no classes; in lower case."""
_ENDING = re.compile(r"\.[a-z][a-z0-9]{0,4}")


class Oddity(NamedTuple):
    """A count of something that a plain set has not, and where it was met first."""

    count: int  # type: ignore[assignment]  # hides a method of tuples; reports have it by this name
    example: str


@dataclass(kw_only=True)
class PhotoTree:
    """The photos of a folder, and what else was in it."""

    folder: Path
    keys: list[str] = field(default_factory=list)
    """Paths below the folder, sorted, `/` between folders."""
    folders: list[str] = field(default_factory=list)
    """The folders directly in it, sorted."""
    oddities: dict[str, Oddity] = field(default_factory=dict)
    """By kind, in words."""

    @property
    def classes(self) -> list[str]:
        """The classes by their folders, sorted."""
        return sorted({class_of(key) for key in self.keys})

    def note(self, kind: str, where: str, count: int = 1) -> None:
        """Count an oddity."""
        before = self.oddities.get(kind, Oddity(0, where))
        self.oddities[kind] = Oddity(before.count + count, before.example)

    def describe(self) -> str:
        """A summary for people: photos, classes, oddities."""
        return describe(self.folder, len(self.keys), self.classes, self.oddities)


def class_of(key: str) -> str:
    """A photo's class: the first folder of its path, without one ''."""
    return key.split("/", 1)[0] if "/" in key else ""


def normal(name: str) -> str:
    """A name in Unicode's normal form C: file systems and editors differ in theirs."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def describe_classes(photos: int, classes: list[str]) -> str:
    """`100 photos of 10 classes, ant … wasp`."""
    if classes in ([], [""]):
        return f"{photos} photos, in no class folders"
    ends = classes[:1] if len(classes) == 1 else [classes[0], classes[-1]]
    names = " … ".join(shown(name) or "''" for name in ends)
    return f"{photos} photos of {len(classes)} {'class' if len(classes) == 1 else 'classes'}, {names}"


def describe(found: object, photos: int, classes: list[str], oddities: Mapping[str, Oddity]) -> str:
    """A line of photos and classes, and one for every kind of oddity. found: where, as it is printed."""
    return "\n  ".join([f"{found}: {describe_classes(photos, classes)}", *told(oddities)])


def told(oddities: Mapping[str, Oddity]) -> list[str]:
    """A line for every kind."""
    return [f"{odd.count} {kind}, e.g. {shown(odd.example)}" for kind, odd in sorted(oddities.items())]


def recorded(oddities: Mapping[str, Oddity]) -> dict[str, dict[str, Any]]:
    """The same for a report."""
    return {kind: odd._asdict() for kind, odd in sorted(oddities.items())}


def list_photos(folder: Path, option: str = "--photos", endings: tuple[str, ...] = JPEG_ENDINGS) -> PhotoTree:
    """The photos in a folder or below it.

    Raises:
        UserError: there are none; the folder holds parts of a set in place of classes; see `find_files`.
    """
    tree = find_files(folder, option, endings)
    if not tree.keys:
        has = "".join(f"\n  {line}" for line in told(tree.oddities))
        raise UserError(
            f"{option}={folder}: no photos (*{', *'.join(endings)}) in it or below it; give a folder of "
            f"photos{has}"
        )
    reject_parts(tree, option)
    if tree.folders and (beside := [key for key in tree.keys if "/" not in key]):
        tree.note("photos beside the class folders, which are a class of no name", beside[0], len(beside))
    for name in without_photos(tree):
        tree.note("folders without photos, which are no classes", name)
    return tree


def without_photos(tree: PhotoTree) -> list[str]:
    """The folders directly in it that hold no photos."""
    return sorted(set(tree.folders) - {class_of(key) for key in tree.keys})


def reject_parts(tree: PhotoTree, option: str) -> None:
    """Refuse a set's parts, of class folders each, where classes should be."""
    parts = tree.classes
    if all(part.lower() in PARTS for part in parts) and all(key.count("/") > 1 for key in tree.keys):
        raise UserError(
            f"{option}={tree.folder}: its folders are {', '.join(parts)}, of class folders each; give one of "
            f"them, {option}={tree.folder / parts[0]} (or, for all in one set, a folder of links to them by "
            "other names)"
        )


def find_files(folder: Path, option: str, endings: tuple[str, ...]) -> PhotoTree:
    """The files of these endings (in lower case; names may have others) in a folder or below it.

    Raises:
        UserError: no such folder; folders that cannot be listed, links to nothing, names that are not UTF-8.
    """
    tree = PhotoTree(folder=require_folder(folder, option))
    walk = _Walk(tree, endings)
    walk.enter(os.fspath(folder), "", (os.path.realpath(folder),))
    tree.keys.sort()
    for key in tree.keys:
        if not key.isprintable() and key != key.encode("utf-8", "replace").decode():
            walk.problems.append(f"{os.fsencode(key)!r} is not a name in UTF-8; rename it")
    if walk.problems:
        found = some(walk.problems, between="\n  ")
        raise UserError(
            f"{option}={folder}: {len(walk.problems)} of what may be photos cannot be read; fix these, or "
            f"take them away:\n  {found}"
        )
    return tree


class _Walk:
    """Goes through a folder and fills its tree."""

    def __init__(self, tree: PhotoTree, endings: tuple[str, ...]) -> None:
        self.tree, self.endings = tree, endings
        self.problems: list[str] = []
        self._entered: set[str] = set()

    def enter(self, place: str, below: str, above: tuple[str, ...]) -> None:
        """Take what is in a folder.

        below: the way there, as photos' paths have it. above: the real paths of it and the folders it was
        come to by. Not inodes, which some network file systems give twice.
        """
        if above[-1] in self._entered:
            self.tree.note("folders taken twice, by links", below.rstrip("/"))
        self._entered.add(above[-1])
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{place} cannot be listed ({error.strerror})")
            return
        for entry in entries:
            self._take(entry, below + entry.name, above)

    def _take(self, entry: os.DirEntry[str], key: str, above: tuple[str, ...]) -> None:
        name = entry.name.lower()
        if name.startswith("."):
            self.tree.note("hidden files or folders, not taken", key)
            return
        link = entry.is_symlink()
        try:
            if link:
                os.stat(entry.path)
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            leads = f" is a link to {os.readlink(entry.path)}:" if link else ""
            self.problems.append(f"{entry.path}{leads} {error.strerror}")
            return
        if is_folder:
            self._take_folder(entry, key, above, link)
        elif not is_file:
            self.tree.note("pipes, sockets or devices, not taken", key)
        elif name.endswith(self.endings):
            self.tree.keys.append(key)
        else:
            ending = os.path.splitext(name)[1]
            kind = f"{ending} files" if _ENDING.fullmatch(ending) else "files without a known ending"
            self.tree.note(f"{kind}, not taken", key)

    def _take_folder(self, entry: os.DirEntry[str], key: str, above: tuple[str, ...], link: bool) -> None:
        real = os.path.realpath(entry.path) if link else os.path.join(above[-1], entry.name)
        if entry.name.lower() in SYSTEM_FOLDERS:
            self.tree.note("folders of the file system's own, not taken", key)
        elif real in above:
            self.tree.note("links to a folder they lie in, not followed", key)
        else:
            if len(above) == 1:
                self.tree.folders.append(entry.name)
            self.enter(entry.path, f"{key}/", (*above, real))
