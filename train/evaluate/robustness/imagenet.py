"""ImageNet's 1000 classes, and what the sets made of ImageNet have of them.

Class n is the n-th wnid in sorted order: so number all maps that are read here, and torchvision. The devkit's
own numbers are others.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dali_bgaug.errors import UserError, some
from dali_bgaug.photo_tree import normal
from train.evaluate.robustness.protocol import EvaluatedNetwork

with (Path(__file__).parent / "data" / "imagenet_classes.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = list(csv.DictReader(_file))

WNIDS = tuple(row["wnid"] for row in _ROWS)
"""In order of classes."""
IMAGENET_A = tuple(row["wnid"] for row in _ROWS if row["imagenet_a"])
"""The 200 classes of ImageNet-A (Hendrycks et al. 2021, "Natural Adversarial Examples")."""
IMAGENET_R = tuple(row["wnid"] for row in _ROWS if row["imagenet_r"])
"""The 200 classes of ImageNet-R (Hendrycks et al. 2021, "The Many Faces of Robustness")."""
CATEGORIES: dict[str, list[int]] = {
    category: [number for number, row in enumerate(_ROWS) if row["category"] == category]
    for category in sorted({row["category"] for row in _ROWS} - {""})
}
"""Classes of the 16 categories of Geirhos et al. 2019, 207 in all."""

CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The 15 corruptions of ImageNet-C by category (Hendrycks and Dietterich 2019)."""
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, meant for validation, which count in no mean."""
SEVERITIES = ("1", "2", "3", "4", "5")


def columns_of(names: Sequence[str], classes: list[str]) -> list[int | None]:
    """The columns of logits that are classes of these names; None: there is none."""
    places = {normal(name): column for column, name in enumerate(classes)}
    return [places.get(normal(name)) for name in names]


def imagenet_columns(network: EvaluatedNetwork, protocol: str) -> np.ndarray:
    """The columns of a network's logits in order of ImageNet's classes: int64 [1000].

    Raises:
        UserError: it has not all of these classes.
    """
    columns = columns_of(WNIDS, network.classes)
    missing = [wnid for wnid, column in zip(WNIDS, columns, strict=True) if column is None]
    if missing:
        raise UserError(
            f"--set {protocol}: needs a classifier of ImageNet's 1000 classes, named by wnids; "
            f"{network.name} has {len(WNIDS) - len(missing)} of these among its {len(network.classes)} "
            f"({some(network.classes, 3)}); take this set away, or give a classifier trained on all 1000"
        )
    return np.array(columns, np.int64)
