"""The background gap: a classifier's accuracy where backgrounds are swapped, or all there is.

Folders are laid out as ImageNet-9's (Xiao et al. 2020, "Noise or Signal"); `tools.background_challenge` makes
them of other sets:

    ROOT/SPLIT/val/CLASS/….jpg      or ROOT/SPLIT/CLASS/….jpg

BG-Gap is the accuracy on mixed_same minus that on mixed_rand; lower is better.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dali_bgaug.errors import UserError, some
from dali_bgaug.files import require_folder
from dali_bgaug.photo_tree import normal
from pipelines import LoaderConfig
from train import distributed
from train.features import batches, open_set, set_record

SPLITS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "only_bg_b", "only_bg_t", "no_fg")
"""The folders of ImageNet-9 (Xiao et al. 2020, Table 1)."""
NONE = -1
"""In a class map: a class that is none of the folders'."""


def find_splits(root: Path) -> dict[str, Path]:
    """The splits that are there, by name.

    Raises:
        UserError: there is none of them.
    """
    require_folder(root, "--data")
    found = {}
    for split in SPLITS:
        inner, outer = root / split / "val", root / split
        if outer.is_dir():
            found[split] = inner if inner.is_dir() else outer
    if not found:
        raise UserError(
            f"--data={root}: has none of the folders {', '.join(SPLITS)}; give ImageNet-9's folder, or "
            "one that `python -m tools.background_challenge` made"
        )
    return found


def read_class_map(path: Path | None, classes: list[str], folders: list[str]) -> torch.Tensor:
    """The folder of every class of a classifier: int64 [len(classes)], NONE for those that have none.

    Args:
        path: JSON, {class: folder}; a class is its name, or else its number, a folder its name, its number or
            -1. ImageNet-9's `in_to_in9.json` is one. None: the classes are the folders, by name.
        classes: the classifier's, in order of its outputs.
        folders: the class folders, sorted.

    Raises:
        UserError: classes without an entry, entries that are no class, folders that do not exist, or,
            without a map, other classes than folders.
    """
    if path is None:
        if classes != folders:
            only = sorted(set(classes) ^ set(folders))
            how = f"only in one of them: {some(only)}" if only else "in another order"
            raise UserError(
                f"the classifier has {len(classes)} classes, the folders are {len(folders)} ({how}); give "
                "--class-map=FILE, which says what belongs to what"
            )
        return torch.arange(len(classes))
    entries = _read_entries(path)
    known = {normal(name): number for number, name in enumerate(classes)}
    numbers = {str(number): number for number in range(len(classes))}
    of_class: dict[int, Any] = {}
    foreign = []
    for key, folder in entries.items():
        number = known.get(normal(key), numbers.get(key))
        if number is None:
            foreign.append(key)
        elif of_class.setdefault(number, folder) != folder:
            raise UserError(
                f"--class-map={path}: {classes[number]}, class {number} of the classifier, has two folders, "
                f"{of_class[number]!r} and {folder!r}; give it by name or by number, once"
            )
    missing = [name for number, name in enumerate(classes) if number not in of_class]
    if foreign or missing:
        faults = [f"{len(foreign)} are none of these: {some(foreign)}"] if foreign else []
        faults += [f"none for {some(missing)}"] if missing else []
        raise UserError(
            f"--class-map={path}: has {len(entries)} entries, the classifier {len(classes)} classes "
            f"({some(classes)}); {'; '.join(faults)}: give a map of the classifier's own classes, by name "
            "where numbers are another classifier's"
        )
    chosen = [of_class[number] for number in range(len(classes))]
    places = {normal(name): number for number, name in enumerate(folders)}
    values = [places.get(normal(value), value) if isinstance(value, str) else value for value in chosen]
    wrong = [value for value in values if type(value) is not int or not NONE <= value < len(folders)]
    if wrong:
        raise UserError(
            f"--class-map={path}: {wrong[0]!r} is no folder; there are {len(folders)}: {some(folders)}; "
            f"{NONE} means none"
        )
    return torch.tensor(values)


def _read_entries(path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
            raise UserError(f"--class-map={path}: {twice[0]!r} comes twice; give each class once")
        return dict(pairs)

    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"--class-map={path}: cannot be read as JSON ({error})") from error
    if not isinstance(entries, dict):
        raise UserError(f"--class-map={path}: expected {{class: folder}}, found a {type(entries).__name__}")
    return entries


class Split(NamedTuple):
    """A folder of the challenge."""

    place: Path
    to_folder: torch.Tensor
    """The folder's number of each class of the classifier: int64 [classes]."""


def open_splits(root: Path, classes: list[str], class_map: Path | None = None) -> dict[str, Split]:
    """The splits that are there, checked, and what a classifier's classes are in them.

    Raises:
        UserError: see `find_splits`, `read_class_map`; empty folders.
    """
    places = find_splits(root)
    folders = {split: open_set(place, f"--data: {split}").classes for split, place in places.items()}
    return {
        split: Split(place, read_class_map(class_map, classes, folders[split]))
        for split, place in places.items()
    }


@torch.no_grad()
def background_gap(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    splits: dict[str, Split],
    reading: LoaderConfig,
    device: torch.device,
) -> dict[str, Any]:
    """Accuracy on every split; every rank must call this.

    Args:
        classifier: images [n, 3, H, W] on `device` -> logits [n, classes]. The most likely of all classes
            counts for the folder it belongs to, as in ImageNet-9.
        splits: of `open_splits`.
        reading: how a split is read and shown, of `evaluation_config`; its `shards` are each split's instead.

    Returns:
        `splits`, accuracy and photos by name, and `bg_gap`, None without both mixed splits.
    """
    found = {}
    for name, split in splits.items():
        to_folder = split.to_folder.to(device)
        counts = torch.zeros(2, dtype=torch.double, device=device)
        data = reading.replaced(shards=split.place)
        for images, labels in batches(data, device, name):
            right = to_folder[classifier(images).argmax(dim=1)] == labels
            counts += torch.stack([right.sum(), torch.full_like(right.sum(), len(labels))])
        right, photos = map(int, distributed.all_reduce_sum(counts).tolist())
        record = {key: value for key, value in set_record(split.place, photos).items() if key != "shards"}
        found[name] = {"accuracy": round(right / photos, 4), **record}
    gap = None
    if {"mixed_same", "mixed_rand"} <= set(found):
        gap = round(found["mixed_same"]["accuracy"] - found["mixed_rand"]["accuracy"], 4)
    return {"bg_gap": gap, "splits": found}
