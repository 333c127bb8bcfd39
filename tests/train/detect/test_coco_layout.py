"""COCO's files, written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from train.detect.coco_layout import read_coco


def _instances() -> dict[str, Any]:
    square = {"image_id": 9, "bbox": [1, 1.5, 2, 1], "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    whole = {"size": [3, 4], "counts": [0, 12]}
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 9, "file_name": "b.jpg", "width": 4, "height": 3, "license": 1},
            {"id": 2, "file_name": "a.jpg", "width": 4, "height": 3},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "category_id": 18, "iscrowd": 0, "area": 4.0, **square},
            {"id": 2, "category_id": 3, **square, "iscrowd": 1, "segmentation": whole},
            {"id": 3, "category_id": 3, **square, "bbox": [1, 1, 0, 2]},
            {"id": 4, "category_id": 3, **square, "segmentation": whole},
        ],
    }


def _write(root: Path, values: object) -> Path:
    for name in ("annotations", "train2017"):
        (root / name).mkdir(exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        (root / "train2017" / name).touch()
    (root / "annotations/instances_train2017.json").write_text(json.dumps(values))
    return root


def test_photos_in_the_files_order(tmp_path: Path) -> None:
    read = read_coco(_write(tmp_path, _instances()), "train2017")
    assert (read.classes, read.category_ids) == (("car", "dog"), (3, 18))
    assert [(photo.key, photo.path) for photo in read.photos] == [
        ("9", tmp_path / "train2017/b.jpg"),
        ("2", tmp_path / "train2017/a.jpg"),
    ]
    objects = read.photos[0].objects
    assert objects.boxes.tolist() == [[1, 1.5, 3, 2.5]] * 2
    assert objects.labels.tolist() == [1, 0]
    assert [one.mask(3, 4).sum() for one in objects.segmentations] == [4, 12]
    assert read.photos[1].objects.boxes.shape == (0, 4)
    assert read.left_out == {"crowds": 1, "objects without area": 1}


def test_boxes_alone(tmp_path: Path) -> None:
    values = _instances()
    for one in values["annotations"]:
        one["segmentation"] = None
    read = read_coco(_write(tmp_path, values), "train2017", masks=False)
    assert read.photos[0].objects.segmentations is None
    with pytest.raises(UserError, match="annotations: id=1: segmentation: neither polygons"):
        read_coco(tmp_path, "train2017")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("annotations", 0, "bbox"), [1, 2, 3], r"annotations.0.bbox: .* \(value \[1, 2, 3\]\)"),
        (("annotations", 0, "bbox", 0), "1", r"annotations.0.bbox.0: .* \(value 1\)"),
        (("annotations", 0, "image_id"), 7, "annotations: id=1: image_id=7: no photo"),
        (("annotations", 0, "category_id"), 1, "annotations: id=1: category_id=1: none of categories"),
        (("annotations", 0, "segmentation"), [[1, 2]], "annotations: id=1: segmentation: a polygon"),
        (("annotations", 3, "segmentation", "size"), [4, 3], "annotations: id=4: segmentation: size="),
        (("images", 0, "width"), 0, "images.0.width"),
        (("annotations", 0, "id"), 0, r"annotations.0.id: .* \(value 0\)"),
        (("annotations", 1, "id"), 1, "annotations: id=1 twice"),
        (("images", 1, "id"), 9, "images: id=9 twice"),
        (("categories", 1, "id"), 18, "categories: id=18 twice"),
        (("images", 1, "file_name"), "c.jpg", "images: .*train2017/c.jpg: no such photo"),
        (("images",), [], "images: "),
    ],
)
def test_values_that_are_wrong(tmp_path: Path, path: tuple[Any, ...], value: object, message: str) -> None:
    values = place = _instances()
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UserError, match=f"instances_train2017.json: {message}"):
        read_coco(_write(tmp_path, values), "train2017")


def test_files_that_are_wrong(tmp_path: Path) -> None:
    _write(tmp_path, _instances())
    with pytest.raises(UserError, match=r"data=.*instances_val2017.json: cannot be read"):
        read_coco(tmp_path, "val2017")
    with pytest.raises(UserError, match="categories=car, dog: the training's are car, cat"):
        read_coco(tmp_path, "train2017", classes=("car", "cat"))
    (tmp_path / "annotations/instances_train2017.json").write_text("{")
    with pytest.raises(UserError, match="instances_train2017.json: damaged, or no JSON"):
        read_coco(tmp_path, "train2017")
