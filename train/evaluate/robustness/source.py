"""A set as the user gives it, NAME=DIR: its photos listed and counted, and what its folder looks like."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field

from dali_bgaug.config import Options
from dali_bgaug.errors import UserError, some
from dali_bgaug.folder import ENDINGS
from dali_bgaug.photo_tree import PhotoTree, describe_classes, find_files, recorded, reject_parts, told
from dali_bgaug.photo_tree import without_photos as empty_folders
from train.evaluate.robustness.imagenet import CATEGORIES, CORRUPTIONS, EXTRA_CORRUPTIONS, WNIDS, columns_of
from train.evaluate.robustness.protocol import EvaluatedNetwork, Score

Kind = TypeVar("Kind", list[Any], dict[str, Any])


class SetOptions(Options):
    """How a set is taken."""

    labels: Path | None = Field(default=None, strict=False)
    """Truths that the photos' folders do not say: ReaL's real.json (by default in the set's folder or the one
    above), or ObjectNet's folder of maps (`mappings` there)."""
    partial: bool = False
    """Take a set of which photos or classes are missing."""
    epsilon: float = Field(default=8, gt=0, le=255)
    """Of fgsm: most that a pixel changes by, in grey levels of 255."""


class Source(NamedTuple):
    """A set that the user named, and who is to be evaluated on it."""

    name: str
    folder: Path
    network: EvaluatedNetwork
    options: SetOptions

    @property
    def option(self) -> str:
        """As error messages begin, before `=DIR`."""
        return f"--set {self.name}"

    def fault(self, problem: str) -> UserError:
        """An error about the set."""
        return UserError(f"{self.option}={self.folder}: {problem}")

    def misfit(self, expected: str, tree: PhotoTree) -> UserError:
        """An error about a folder that is laid out in another way than its name says."""
        return self.fault(f"is not laid out as {expected}; it {describe_layout(tree)}")

    def truths(self, name: str, remedy: str) -> Path:
        """Where the photos' truths are: the given place, or what is called `name` in the folder or beside it.

        Raises:
            UserError: it is in neither; `remedy` says where it comes from.
        """
        if self.options.labels is not None:
            return self.options.labels
        above = self.folder.resolve().parent
        for place in (self.folder / name, above / name):
            if place.exists():
                return place
        raise self.fault(
            f"no {name} in it or beside it ({above}); {remedy}, or say where it is, in a file of --sets: "
            f"{self.name}: {{folder: DIR, labels: PATH}}"
        )

    def columns(self, folders: list[str]) -> dict[str, int]:
        """The columns of the network's logits that are classes of these folders' names.

        Raises:
            UserError: folders that are none of its classes.
        """
        columns = dict(zip(folders, columns_of(folders, self.network.classes), strict=True))
        if foreign := [name for name, column in columns.items() if column is None]:
            classes = self.network.classes
            raise self.fault(
                f"{len(foreign)} of its {len(folders)} folders are no classes of {self.network.name}: "
                f"{some(foreign)}; it has {len(classes)} ({some(classes, 3)}): name folders as these are, or "
                "take them away"
            )
        return {name: column for name, column in columns.items() if column is not None}


class Found(NamedTuple):
    """A set as its protocol knows it: see `protocol.RobustnessSet`."""

    files: list[str]
    """Paths below `folder`."""
    score: Score
    record: dict[str, Any]
    folder: Path
    part: str | None = None
    """Which of several sets in the user's folder."""


def folders_in(place: Path) -> list[Path]:
    """The folders directly in one, sorted; none in what cannot be listed, which `list_photos` will say."""
    try:
        with os.scandir(place) as found:
            return sorted(Path(entry.path) for entry in found if entry.is_dir())
    except OSError:
        return []


def list_photos(source: Source, folder: Path | None = None) -> PhotoTree:
    """The photos of a set, those of every ending that the decoder knows.

    Raises:
        UserError: there are none; see `photo_tree.find_files` and `reject_parts`.
    """
    tree = find_files(folder or source.folder, source.option, ENDINGS)
    if not tree.keys:
        has = "".join(f"\n  {line}" for line in told(tree.oddities))
        raise source.fault(f"no photos ({', '.join(ENDINGS)}) in it or below it; unpack the set there{has}")
    reject_parts(tree, source.option)
    for name in empty_folders(tree):
        tree.note("folders without photos, which are no classes", name)
    return tree


def list_class_folders(source: Source, expected: str, folder: Path | None = None) -> PhotoTree:
    """The photos of a set of class folders; what lies beside these is counted and left out.

    Raises:
        UserError: there are no photos in folders; see `list_photos`.
    """
    tree = list_photos(source, folder)
    beside = [key for key in tree.keys if "/" not in key]
    if len(beside) == len(tree.keys):
        raise source.misfit(expected, tree)
    if beside:
        tree.keys = [key for key in tree.keys if "/" in key]
        tree.note("photos beside the class folders, not taken", beside[0], len(beside))
    return tree


def set_counts(
    source: Source, tree: PhotoTree, found: dict[str, int], expected: dict[str, int] | None = None
) -> dict[str, Any]:
    """The record of what a set holds, checked.

    Args:
        source: the set.
        tree: its photos.
        found: counts, `photos` and `classes`.
        expected: those of the whole set; None: it has no size of its own.

    Raises:
        UserError: other counts were found, and the user does not want a part.
    """
    record: dict[str, Any] = {"found": found}
    if expected is not None:
        record["expected"] = expected
        record["complete"] = found == expected
        if found != expected and not source.options.partial:
            wrong = [f"{found[what]} {what} of {count}" for what, count in expected.items()]
            has = "".join(f"\n  {line}" for line in told(tree.oddities))
            raise source.fault(
                f"has {', '.join(wrong)}; a part's number stands beside no other's: unpack the whole set, or "
                f"take what there is with --partial{has}"
            )
    if tree.oddities:
        record["oddities"] = recorded(tree.oddities)
    return record


def describe_layout(tree: PhotoTree) -> str:
    """What a folder looks like, in words, for errors."""
    classes = set(tree.classes)
    levels = {name for key in tree.keys for name in key.split("/")[:2]}
    if corruptions := levels & {
        *EXTRA_CORRUPTIONS,
        *(name for names in CORRUPTIONS.values() for name in names),
    }:
        return f"has folders of corruptions ({some(sorted(corruptions), 3)}), with photos like {tree.keys[0]}"
    if classes == {""}:
        return f"has {len(tree.keys)} photos in no folders ({some(tree.keys, 2)})"
    classes.discard("")
    if wnids := classes & set(WNIDS):
        return f"has folders named by wnids, {len(wnids)} of ImageNet's 1000 ({some(sorted(wnids), 2)})"
    if all(name.isdecimal() for name in classes):
        return f"has {len(classes)} numbered folders ({some(sorted(classes, key=int), 3)}), as ImageNet-v2"
    if classes <= set(CATEGORIES):
        return f"has folders of categories ({some(sorted(classes), 3)}), as the cue-conflict stimuli"
    return f"has {describe_classes(len(tree.keys), sorted(classes))}"


def read_map(source: Source, path: Path, kind: type[Kind]) -> Kind:
    """A JSON file of a set's truths.

    Raises:
        UserError: it cannot be read, or does not hold a `kind`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise source.fault(f"{path}: cannot be read as JSON ({error}); take it from the set again") from error
    if not isinstance(values, kind):
        raise source.fault(f"{path}: holds a {type(values).__name__}, no {kind.__name__}; give the set's own")
    return values
