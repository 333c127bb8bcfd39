"""COCO's layout: one JSON file a split.

ROOT/annotations/instances_train2017.json
ROOT/train2017/000000000009.jpg
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dali_bgaug.errors import UserError, some
from train.detect.masks import Segmentation, read_segmentation
from train.detect.objects import AnnotatedPhoto, DetectionSet, PhotoObjects
from train.records import wrong_field


class _Entry(BaseModel):
    """Base of what is in the file; what else it has is not read."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Image(_Entry):
    id: int
    file_name: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class _Category(_Entry):
    id: int
    name: str


class _Annotation(_Entry):
    id: int = Field(ge=1)
    """From 1 on: COCO's metric takes a match with object 0 for none."""
    image_id: int
    category_id: int
    bbox: list[float] = Field(min_length=4, max_length=4)
    """x, y, width, height between pixels."""
    iscrowd: int = Field(default=0, ge=0, le=1)
    segmentation: Any = None


class _Instances(_Entry):
    images: list[_Image] = Field(min_length=1)
    categories: list[_Category] = Field(min_length=1)
    annotations: list[_Annotation]


def read_coco(
    root: Path,
    split: str,
    *,
    masks: bool = True,
    classes: tuple[str, ...] | None = None,
    option: str = "data",
) -> DetectionSet:
    """The photos of a split such as train2017, in the file's order.

    Crowds, which are one mask of many objects, and objects without area are left out: nobody is trained with
    them, and COCO's own metric reads the file itself.

    Args:
        masks: read segmentations, too.
        classes: those of the training, which must be these; None: any.
        option: where `root` comes from, for errors.

    Raises:
        UserError: what is missing or wrong, by file, key and value.
    """
    file = root / "annotations" / f"instances_{split}.json"
    read = _read_file(file, option, root)
    categories = sorted(read.categories, key=lambda category: category.id)
    names = tuple(category.name for category in categories)
    if classes is not None and names != classes:
        raise UserError(f"{file}: categories={some(names)}: the training's are {some(classes)}; give its set")
    places = {category.id: place for place, category in enumerate(categories)}
    images = {image.id: image for image in read.images}
    for what, unique, entries in (
        ("categories", places, categories),
        ("images", images, read.images),
        ("annotations", {one.id for one in read.annotations}, read.annotations),
    ):
        if len(unique) < len(entries):
            twice = Counter(entry.id for entry in entries).most_common(1)[0][0]
            raise UserError(f"{file}: {what}: id={twice} twice; correct the file")
    rows: dict[int, list[tuple[list[float], int, Segmentation | None]]] = {number: [] for number in images}
    left_out: Counter[str] = Counter()
    for one in read.annotations:
        where = f"{file}: annotations: id={one.id}"
        if one.image_id not in images:
            raise UserError(f"{where}: image_id={one.image_id}: no photo of images; correct the file")
        if one.category_id not in places:
            raise UserError(f"{where}: category_id={one.category_id}: none of categories; correct the file")
        left, top, width, height = one.bbox
        if one.iscrowd or width <= 0 or height <= 0:
            left_out["crowds" if one.iscrowd else "objects without area"] += 1
            continue
        segmentation = _segmentation(one, images[one.image_id], where) if masks else None
        box = [left, top, left + width, top + height]
        rows[one.image_id].append((box, places[one.category_id], segmentation))
    photos = [_photo(root / split, image, rows[number], masks) for number, image in images.items()]
    if missing := next((photo.path for photo in photos if not photo.path.is_file()), None):
        raise UserError(f"{file}: images: {missing}: no such photo; unpack the photos anew")
    return DetectionSet(names, photos, dict(left_out), tuple(places))


def _read_file(file: Path, option: str, root: Path) -> _Instances:
    try:
        return _Instances.model_validate(json.loads(file.read_bytes()))
    except OSError as error:
        raise UserError(
            f"{option}={root}: {file}: cannot be read ({error.strerror}); give the folder that has "
            "annotations/ and the photos' folders"
        ) from error
    except ValidationError as error:  # a ValueError, too
        value = str(error.errors()[0]["input"])[:80]
        raise UserError(f"{file}: {wrong_field(error)} (value {value}); correct the file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged, or no JSON ({error}); unpack the annotations anew") from error


def _segmentation(one: _Annotation, image: _Image, where: str) -> Segmentation:
    try:
        return read_segmentation(one.segmentation, image.height, image.width)
    except ValueError as error:
        raise UserError(f"{where}: segmentation: {error}; correct the file") from error


def _photo(
    folder: Path, image: _Image, rows: list[tuple[list[float], int, Segmentation | None]], masks: bool
) -> AnnotatedPhoto:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in rows], np.int64)
    segmentations = tuple(segmentation for *_, segmentation in rows if segmentation) if masks else None
    objects = PhotoObjects(boxes, labels, np.zeros(len(rows), bool), segmentations)
    return AnnotatedPhoto(str(image.id), folder / image.file_name, image.width, image.height, objects)
