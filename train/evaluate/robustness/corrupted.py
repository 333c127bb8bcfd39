"""ImageNet-C (Hendrycks and Dietterich 2019), or a set laid out like it: accuracy by corruption and severity.

[CATEGORY/]CORRUPTION/SEVERITY/CLASS/….JPEG: photos are cropped, as they are, and not resized again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dali_bgaug.errors import some
from dali_bgaug.photo_tree import PhotoTree
from train.evaluate.robustness.imagenet import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, WNIDS
from train.evaluate.robustness.scores import Accuracy, Criterion, mean, single, was_read
from train.evaluate.robustness.source import Found, Source, folders_in, list_photos, set_counts

Cell = tuple[str, str]
"""A corruption and a severity."""
PHOTO_SIZE = 224
"""Of ImageNet-C's photos, in pixels."""
COUNTED = tuple(name for names in CORRUPTIONS.values() for name in names)
KNOWN = (*COUNTED, *EXTRA_CORRUPTIONS)
EXPECTED = "ImageNet-C ([CATEGORY/]CORRUPTION/SEVERITY/CLASS/….JPEG, severities 1 to 5)"
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Mean errors of AlexNet over the severities, by which mCE divides (augmix's imagenet.py)."""


class _Place(NamedTuple):
    """Where a photo lies."""

    cell: Cell
    root: str
    """The folder of its corruption."""
    name: str
    """Of its class."""


class CorruptionAccuracy(Accuracy):
    """Accuracy in every cell, and its means by corruption, category and severity: a `Score`."""

    def __init__(
        self, columns: np.ndarray, truths: Sequence[int], cells: Sequence[Cell], is_imagenet: bool
    ) -> None:
        """Of photos in cells.

        Args:
            columns: of logits, the classes to choose from.
            truths: columns of photos' classes.
            cells: of photos.
            is_imagenet: whether classes are ImageNet's, so that AlexNet's errors are a measure.
        """
        metric = "mean top-1 accuracy over corruptions and severities"
        super().__init__([Criterion("top1", columns, single(truths))], metric)
        self._cells = sorted(set(cells))
        numbers = {cell: number for number, cell in enumerate(self._cells)}
        self._cell_of = np.array([numbers[cell] for cell in cells], np.int16)
        self._is_imagenet = is_imagenet

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """`table` of accuracies, with the extra corruptions apart; `by_corruption`, `by_category`,
        `by_severity`, `mce`; the value is the mean of the table without the extra ones."""
        read = was_read(outcomes)
        found: dict[Cell, float] = {}
        counted = 0
        for number, cell in enumerate(self._cells):
            rows = read & (self._cell_of == number)
            if rows.any():
                found[cell] = float(outcomes[rows, 0].mean(dtype=np.float64))
                counted += int(rows.sum()) if cell[0] in COUNTED else 0
        by_corruption = {
            name: values
            for name in KNOWN
            if (values := {level: found[name, level] for level in SEVERITIES if (name, level) in found})
        }
        main = {name: values for name, values in by_corruption.items() if name in COUNTED}
        extra = {name: _rounded(by_corruption[name]) for name in EXTRA_CORRUPTIONS if name in by_corruption}
        cells = [value for values in main.values() for value in values.values()]
        table: dict[str, Any] = {name: _rounded(values) for name, values in main.items()}
        return {
            "value": _round(mean(cells)),
            "metric": self.metric,
            "photos": counted,
            "cells": f"{len(cells)} of {len(COUNTED) * len(SEVERITIES)}",
            "table": table | ({"extra": extra} if extra else {}),
            "by_corruption": _rounded({name: mean([*values.values()]) for name, values in main.items()}),
            "by_category": _rounded(
                {
                    category: mean([value for name in names for value in main.get(name, {}).values()])
                    for category, names in CORRUPTIONS.items()
                }
            ),
            "by_severity": _rounded(
                {level: mean([values.get(level) for values in main.values()]) for level in SEVERITIES}
            ),
            "mce": self._mce(main),
            "mce_normaliser": "AlexNet's mean errors (Hendrycks and Dietterich 2019)",
        }

    def _mce(self, table: dict[str, dict[str, float]]) -> float | None:
        """Mean corruption error: 1 is AlexNet's; None unless it is of all cells, of ImageNet's classes."""
        whole = len(table) == len(COUNTED) and all(
            len(values) == len(SEVERITIES) for values in table.values()
        )
        if not (whole and self._is_imagenet):
            return None
        return _round(
            mean([(1 - sum(table[c].values()) / len(SEVERITIES)) / ALEXNET_ERRORS[c] for c in COUNTED])
        )


def open_corrupted(source: Source) -> list[Found]:
    """A set laid out as ImageNet-C; classes are the network's, by name."""
    tree = list_photos(source)
    folders = [key.rpartition("/")[0] for key in tree.keys]
    places = {folder: _place(folder) for folder in set(folders)}  # 75 000 for 3.75 million photos
    if strange := [key for key, folder in zip(tree.keys, folders, strict=True) if places[folder] is None]:
        if len(strange) == len(folders):
            raise source.misfit(EXPECTED, tree)
        raise source.fault(
            f"{len(strange)} of its {len(folders)} photos do not lie as in {EXPECTED}: {some(strange, 3)}; "
            f"corruptions are {', '.join(KNOWN)}; move these, or take them away"
        )
    known = {folder: place for folder, place in places.items() if place is not None}
    _reject_twice(source, known.values())
    names = sorted({place.name for place in known.values()})
    columns = source.columns(names)
    cells = [known[folder].cell for folder in folders]
    record = set_counts(source, tree, {"photos": len(cells), "classes": len(names)})
    record |= _cell_record(source, Counter(cells))
    if source.network.size != PHOTO_SIZE:
        record["crop"] = f"{source.network.size} px, another than the {PHOTO_SIZE} px of ImageNet-C"
    _require_size(source, tree)
    score = CorruptionAccuracy(
        np.arange(len(source.network.classes)),
        [columns[known[folder].name] for folder in folders],
        cells,
        is_imagenet=set(WNIDS) == set(source.network.classes) and set(names) <= set(WNIDS),
    )
    return [Found(tree.keys, score, record, source.folder)]


def is_corrupted(folder: Path) -> bool:
    """Whether a folder is laid out as ImageNet-C, with or without a level of categories."""
    below = [place for top in folders_in(folder) for place in (top, *folders_in(top))]
    return any(p.name in KNOWN and {*SEVERITIES} & {inner.name for inner in folders_in(p)} for p in below)


def _place(folder: str) -> _Place | None:
    """Where photos lie by the path of their folder; None: elsewhere."""
    *above, corruption, severity, name = folder.split("/") if folder.count("/") > 1 else ["", "", ""]
    if len(above) > 1 or corruption not in KNOWN or severity not in SEVERITIES:
        return None
    return _Place((corruption, severity), "/".join([*above, corruption]), name)


def _reject_twice(source: Source, places: Iterable[_Place]) -> None:
    """Refuse a corruption that is there in two places: it would count twice."""
    roots: dict[str, set[str]] = {}
    for place in places:
        roots.setdefault(place.cell[0], set()).add(place.root)
    for corruption, there in sorted(roots.items()):
        if len(there) > 1:
            both = " and ".join(sorted(there))
            raise source.fault(f"{corruption} is there twice, {both}; take one of them away")


def _cell_record(source: Source, photos: Counter[Cell]) -> dict[str, Any]:
    """What cells there are; those that are not must be said, and all must have as many photos."""
    most = max(photos.values())
    fewer = [f"{'/'.join(cell)} ({count})" for cell, count in sorted(photos.items()) if count < most]
    if fewer and not source.options.partial:
        raise source.fault(
            f"{len(fewer)} of its {len(photos)} corruptions and severities have fewer photos than others' "
            f"{most}: {some(fewer, 5)}; unpack the whole set, or take what there is with --partial"
        )
    there = {name for name, _ in photos}
    missing = [name for name in COUNTED if name not in there]
    missing += [
        f"{name}/{level}"
        for name in COUNTED
        for level in SEVERITIES
        if name in there and (name, level) not in photos
    ]
    return {
        "photos_per_cell": most,
        **({"uneven": fewer} if fewer else {}),
        **({"missing": missing} if missing else {}),
    }


def _require_size(source: Source, tree: PhotoTree) -> None:
    """Refuse photos, going by the first, that are smaller than the crop taken from them."""
    try:
        with Image.open(source.folder / tree.keys[0]) as photo:
            size = photo.size
    except OSError:
        return  # the loader will say so
    if min(size) < source.network.size:
        raise source.fault(
            f"{tree.keys[0]} is {size[0]} x {size[1]}, smaller than the crop of {source.network.size} pixels "
            f"that {source.network.name} is shown, and photos of this protocol are not resized"
        )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded(values: dict[str, Any]) -> dict[str, float | None]:
    return {name: _round(value) for name, value in values.items()}
