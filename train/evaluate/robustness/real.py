"""ReaL (Beyer et al. 2020, "Are we done with ImageNet?"): the validation photos, with every label that fits.

real.json is a list of 50 000 lists of classes; entry i is of ILSVRC2012_val_{i + 1:08d}, wherever that file
lies. Photos whose list is empty are not judged.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from dali_bgaug.errors import some
from dali_bgaug.files import digest
from dali_bgaug.photo_tree import class_of
from train.evaluate.robustness.imagenet import WNIDS, imagenet_columns
from train.evaluate.robustness.protocol import EvaluatedNetwork
from train.evaluate.robustness.scores import NONE, Accuracy, Criterion, several, single
from train.evaluate.robustness.source import Found, Source, list_photos, read_map, set_counts

PHOTOS = 50_000
_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})(?![0-9])", re.IGNORECASE)
LEAST_AGREEMENT = 0.5
"""Of original labels with ReaL's, where both are known; it is .9 where both are numbered alike."""


class RealAccuracy(Accuracy):
    """ReaL accuracy, and `top1` on the original labels of all photos where folders give them: a `Score`."""

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """See `Accuracy.summarise`."""
        result = super().summarise(outcomes)
        if accuracies := result.pop("accuracies", None):
            photos = result.pop("counted", {}).get("top1", result["photos"])
            result |= {"top1": accuracies["top1"], "top1_photos": photos}
        return result


def open_real(source: Source) -> list[Found]:
    """ImageNet's validation photos, in folders of wnids or in none."""
    labels_file = source.truths("real.json", "take it from github.com/google-research/reassessed-imagenet")
    labels = _read_labels(source, labels_file)
    tree = list_photos(source)
    numbers = _photo_numbers(source, tree.keys)
    wnids = tree.classes
    in_folders = wnids != [""]
    if in_folders and not set(wnids) <= set(WNIDS):
        raise source.misfit("ImageNet's validation set (wnid folders, or all photos in one)", tree)
    counts = {"photos": len(tree.keys)}
    record = set_counts(source, tree, counts, {"photos": PHOTOS}) | {
        "labels": str(labels_file),
        "labels_digest": digest(labels),
    }
    files = tree.keys
    if not in_folders:  # without a label of either kind there is nothing to ask
        files = [key for key, number in zip(files, numbers, strict=True) if labels[number - 1]]
        numbers = [number for number in numbers if labels[number - 1]]
    real = [labels[number - 1] for number in numbers]
    record["judged"] = sum(map(bool, real))
    classes = {wnid: number for number, wnid in enumerate(WNIDS)}
    original = [classes[class_of(key)] for key in files] if in_folders else None
    if original:
        record["agreement"] = _agreement(source, labels_file, real, original)
    return [Found(files, _score(source.network, source.name, real, original), record, source.folder)]


def _score(
    network: EvaluatedNetwork, name: str, real: list[list[int]], original: list[int] | None
) -> RealAccuracy:
    columns = imagenet_columns(network, name)
    truths = several(real)
    criteria = [Criterion("real", columns, np.where(truths == NONE, NONE, columns[truths]))]
    if original:
        criteria.append(Criterion("top1", columns, single(columns[original])))
    return RealAccuracy(criteria, "ReaL accuracy: the answer is one of the photo's labels")


def _read_labels(source: Source, path: Path) -> list[list[int]]:
    labels = read_map(source, path, list)
    if len(labels) != PHOTOS:
        raise source.fault(f"{path} has {len(labels)} entries, ReaL {PHOTOS}; give ReaL's own real.json")
    for number, entry in enumerate(labels):
        classes = entry if isinstance(entry, list) else [None]
        if not all(type(label) is int and 0 <= label < len(WNIDS) for label in classes):
            raise source.fault(
                f"{path}: entry {number} is {str(entry)[:60]}, no list of classes 0 to 999; give ReaL's own "
                "real.json"
            )
    return labels


def _photo_numbers(source: Source, keys: list[str]) -> list[int]:
    """Numbers of validation photos by their names, from 1."""
    matches = [_NAME.match(key.rsplit("/", 1)[-1]) for key in keys]
    if foreign := [key for key, match in zip(keys, matches, strict=True) if match is None]:
        raise source.fault(
            f"{len(foreign)} of its {len(keys)} photos are not named like ILSVRC2012_val_00000001.JPEG, by "
            f"which labels are found: {some(foreign, 4)}; take these away, or give them their names back"
        )
    numbers = [int(match[1]) for match in matches if match]
    seen: dict[int, str] = {}
    for key, number in zip(keys, numbers, strict=True):
        if not 1 <= number <= PHOTOS:
            raise source.fault(f"{key}: there are validation photos 1 to {PHOTOS}; take it away")
        if number in seen:
            raise source.fault(f"{key} and {seen[number]} are one photo; take one of them away")
        seen[number] = key
    return numbers


def _agreement(source: Source, path: Path, real: list[list[int]], original: list[int]) -> float | None:
    """The share of judged photos whose original label is one of ReaL's.

    Raises:
        UserError: of a hundred photos or more, less than LEAST_AGREEMENT.
    """
    agree = [label in labels for label, labels in zip(original, real, strict=True) if labels]
    found = sum(agree) / len(agree) if agree else None
    if found is not None and len(agree) >= 100 and found < LEAST_AGREEMENT:
        raise source.fault(
            f"only {found:.0%} of the photos' folders agree with {path} (90 % is usual): classes there must "
            "be numbered in order of wnids, not by the devkit, and entry i be of photo i + 1; give ReaL's own"
        )
    return None if found is None else round(found, 4)
