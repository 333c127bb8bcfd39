"""Sets in class folders: one's own, ImageNet-A and -R over their 200 classes, ImageNet-v2, and for fgsm."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dali_bgaug.errors import some
from dali_bgaug.photo_tree import PhotoTree, class_of, normal
from train.evaluate.robustness.fgsm import FgsmScore
from train.evaluate.robustness.imagenet import IMAGENET_A, IMAGENET_R, WNIDS, imagenet_columns
from train.evaluate.robustness.scores import Accuracy, Criterion, single
from train.evaluate.robustness.source import Found, Source, folders_in, list_class_folders, set_counts

V2_PARTS = ("matched-frequency", "threshold0.7", "top-images")
"""The three samples of ImageNet-v2 (Recht et al. 2019), the one that papers report first."""


def open_folders(source: Source) -> list[Found]:
    """Class folders named like classes of the network: accuracy over the logits of these classes alone."""
    tree, columns = own_classes(source)
    classes = sorted(set(columns))
    if len(classes) == 1:
        raise source.fault(f"{tree.classes[0]} is its only class, so every answer would be right; give two")
    which = "all" if len(classes) == len(source.network.classes) else f"its own {len(classes)}"
    metric = f"top-1 accuracy over the logits of {which} classes"
    score = Accuracy([Criterion("top1", np.array(classes), single(columns))], metric)
    return [Found(tree.keys, score, set_counts(source, tree, _counts(tree)), source.folder)]


def open_attacked(source: Source) -> list[Found]:
    """Class folders of photos that fgsm attacks."""
    tree, columns = own_classes(source)
    score = FgsmScore(
        labels=np.array(columns, np.int64),
        normalise=source.network.normalise,
        epsilon=source.options.epsilon,
    )
    return [Found(tree.keys, score, set_counts(source, tree, _counts(tree)), source.folder)]


def open_imagenet_a(source: Source) -> list[Found]:
    """ImageNet-A, or Only-FG ImageNet-A."""
    return _open_200(source, "ImageNet-A", IMAGENET_A, photos=7500)


def open_imagenet_r(source: Source) -> list[Found]:
    """ImageNet-R."""
    return _open_200(source, "ImageNet-R", IMAGENET_R, photos=30_000)


def open_imagenet_v2(source: Source) -> list[Found]:
    """ImageNet-v2, one of its three samples or a folder of them; folders are named by numbers of classes."""
    expected = (
        "ImageNet-v2 (folders 0 … 999, or folders like imagenetv2-matched-frequency-format-val of these)"
    )
    columns = imagenet_columns(source.network, source.name)
    found = []
    for part, folder in _v2_folders(source).items():
        tree = list_class_folders(source, expected, folder)
        numbers = [
            int(name) if re.fullmatch(r"[0-9]{1,4}", name) else -1 for name in map(class_of, tree.keys)
        ]
        if not all(0 <= number < len(WNIDS) for number in numbers):
            raise source.misfit(expected, tree)
        counts = {"photos": len(numbers), "classes": len(set(numbers))}
        record = set_counts(source, tree, counts, {"photos": 10_000, "classes": 1000})
        score = Accuracy([Criterion("top1", columns, single(columns[numbers]))], "top-1 accuracy")
        found.append(Found(tree.keys, score, record, folder, part))
    return found


def own_classes(source: Source) -> tuple[PhotoTree, list[int]]:
    """The photos of a set whose folders are classes of the network, and the column of each photo's class.

    Raises:
        UserError: see `source.list_class_folders` and `Source.columns`.
    """
    tree = list_class_folders(source, "a set of class folders")
    columns = source.columns(tree.classes)
    return tree, [columns[class_of(key)] for key in tree.keys]


def _open_200(source: Source, title: str, wnids: Sequence[str], photos: int) -> list[Found]:
    """Class folders that are these 200 of ImageNet's: accuracy over their logits, whichever are there."""
    columns = imagenet_columns(source.network, source.name)
    tree = list_class_folders(source, f"{title} (200 folders of wnids)")
    if foreign := sorted(set(map(normal, tree.classes)) - set(wnids)):
        if len(foreign) == len(tree.classes):
            raise source.misfit(f"{title} (200 folders of wnids)", tree)
        raise source.fault(
            f"{len(foreign)} of its {len(tree.classes)} folders are none of {title}'s 200: {some(foreign)}; "
            "give that set's own folder"
        )
    of_wnid = dict(zip(WNIDS, columns.tolist(), strict=True))
    record = set_counts(source, tree, _counts(tree), {"photos": photos, "classes": 200})
    criterion = Criterion(
        "top1",
        np.array([of_wnid[wnid] for wnid in wnids]),
        single([of_wnid[class_of(key)] for key in tree.keys]),
    )
    metric = f"top-1 accuracy over the logits of {title}'s 200 classes"
    return [Found(tree.keys, Accuracy([criterion], metric), record, source.folder)]


def _counts(tree: PhotoTree) -> dict[str, int]:
    return {"photos": len(tree.keys), "classes": len(tree.classes)}


def _v2_folders(source: Source) -> dict[str | None, Path]:
    """The folders of ImageNet-v2's samples by name; the given folder itself, if it has none."""
    there = folders_in(source.folder)
    parts: dict[str | None, Path] = {}
    for part in V2_PARTS:
        folders = [place for place in there if part in place.name.lower()]
        if len(folders) > 1:
            names = " and ".join(place.name for place in folders)
            raise source.fault(f"has {part} twice, {names}; take one of them away")
        if folders:
            parts[part] = folders[0]
    own = next((part for part in V2_PARTS if part in source.folder.name.lower()), None)
    return parts or {own: source.folder}
