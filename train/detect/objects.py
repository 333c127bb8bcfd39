"""Photos with objects: what VOC's and COCO's files say, in one form."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.detect.masks import Segmentation


class PhotoObjects(NamedTuple):
    """The objects of a photo."""

    boxes: np.ndarray
    """float32 [N, 4]: left, top, right, bottom, between pixels: a whole photo is 0, 0, width, height."""
    labels: np.ndarray
    """int64 [N], from 0: places in the set's classes."""
    difficult: np.ndarray
    """bool [N]: of VOC; trained with, but neither right nor wrong in testing."""
    segmentations: tuple[Segmentation, ...] | None
    """One an object; None where a layout has none."""


class AnnotatedPhoto(NamedTuple):
    """A photo and its objects."""

    key: str
    """Its name in the set: VOC2007/000005; of COCO, its number."""
    path: Path
    width: int
    height: int
    objects: PhotoObjects


class DetectionSet(NamedTuple):
    """Photos with objects."""

    classes: tuple[str, ...]
    photos: list[AnnotatedPhoto]
    """In the order of their files."""
    left_out: dict[str, int]
    """How many objects were left out, by reason."""
    category_ids: tuple[int, ...] = ()
    """COCO's numbers of the classes."""
