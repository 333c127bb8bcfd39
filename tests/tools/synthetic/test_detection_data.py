"""The small detection set: both layouts, boxes and masks of what shows, same bytes for the same settings."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tools.synthetic.detection_data import coco_annotation, write_detection_set
from tools.synthetic.detection_photos import DetectionSettings, Object, _visible, render
from train.detect.coco import CocoDetections, evaluate_coco
from train.detect.coco_layout import read_coco
from train.detect.masks import compress
from train.detect.voc_layout import read_voc

SMALL = DetectionSettings(photos=6, test_photos=3, side=96, seed=3)
COCO = replace(SMALL, layout="coco")


@cache
def _drawn(number: int) -> tuple[np.ndarray, list[Object]]:
    """A photo of SMALL, which is drawn once; of COCO, too."""
    return render(SMALL, number)


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.synthetic.detection_data.render", lambda _, number: _drawn(number))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detection") / "set"
    write_detection_set(out, SMALL, workers=1)
    return out


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detection") / "coco"
    write_detection_set(out, COCO, workers=1)
    return out


def test_it_is_read_as_voc_is(made: Path) -> None:
    """Keys by split, photos of their size, and every box tight around an object of another look."""
    train = read_voc(made, ["VOC2007/trainval"])
    test = read_voc(made, ["VOC2007/test"], train.classes)
    assert set(train.classes) <= {"disc", "triangle", "star"}
    assert [photo.key for photo in train.photos] == [f"VOC2007/{number:06d}" for number in range(6)]
    assert [photo.key for photo in test.photos] == [f"VOC2007/{number:06d}" for number in (6, 7, 8)]
    assert max(len(photo.objects.labels) for photo in train.photos + test.photos) == 3
    for number, photo in enumerate(train.photos + test.photos):
        with Image.open(photo.path) as image:
            assert image.size == (photo.width, photo.height)
        assert max(photo.width, photo.height) == 96
        _, objects = _drawn(number)
        for one, (left, top, right, bottom) in zip(objects, photo.objects.boxes.astype(int), strict=True):
            assert one.mask[top:bottom, left:right].sum() == one.mask.sum()
            edges = one.mask[top], one.mask[bottom - 1], one.mask[:, left], one.mask[:, right - 1]
            assert all(edge.any() for edge in edges)


def test_both_layouts_have_the_same_photos(made: Path, coco: Path) -> None:
    """And the same boxes, but for crowds, with the exact masks."""
    for split, name, first in (("train2017", "trainval", 0), ("val2017", "test", 6)):
        read, other = read_coco(coco, split), read_voc(made, [f"VOC2007/{name}"])
        assert (read.classes, read.category_ids) == (("disc", "triangle", "star"), (3, 13, 23))
        assert len(read.photos) == len(other.photos)
        for number, (photo, same) in enumerate(zip(read.photos, other.photos, strict=True), first):
            assert photo.path.read_bytes() == same.path.read_bytes()
            boxes, difficult = same.objects.boxes, same.objects.difficult
            assert photo.objects.boxes.tolist() == boxes[~difficult].tolist()
            objects = [one for one in _drawn(number)[1] if not one.difficult]
            assert [read.classes[label] for label in photo.objects.labels] == [one.name for one in objects]
            for segmentation, one in zip(photo.objects.segmentations, objects, strict=True):
                assert (segmentation.mask(*one.mask.shape) == one.mask).all()


def test_an_object_as_coco_has_it() -> None:
    """One that is difficult is a crowd, whose mask is run lengths."""
    mask = np.zeros((3, 5), bool)
    mask[1:, 2:4] = True
    text = coco_annotation(
        "000000000007", (3, 5, 3), [Object("star", True, mask), Object("disc", False, mask)]
    )
    values = json.loads(text)
    assert values["image"] == {"id": 7, "file_name": "000000000007.jpg", "width": 5, "height": 3}
    crowd, object_ = values["annotations"]
    assert crowd == {
        "image_id": 7,
        "category_id": 23,
        "bbox": [2, 1, 2, 2],
        "area": 4,
        "iscrowd": 1,
        "segmentation": {"size": [3, 5], "counts": [7, 2, 1, 2, 3]},
    }
    assert (object_["iscrowd"], object_["category_id"], len(object_["segmentation"])) == (0, 3, 1)


def test_cocos_metric_of_the_truth(coco: Path) -> None:
    """All of it is found: 100, of boxes and of masks."""
    pytest.importorskip("pycocotools")
    read = read_coco(coco, "val2017")
    found = {}
    for photo in read.photos:
        boxes, labels, _, segmentations = photo.objects
        masks = tuple(compress(one.mask(photo.height, photo.width)) for one in segmentations)
        size = photo.height, photo.width
        found[photo.key] = CocoDetections(boxes, labels, np.ones(len(labels)), masks, size)
    scores = evaluate_coco(coco / "annotations/instances_val2017.json", found, read.category_ids)
    assert (scores["boxes"]["ap"], scores["masks"]["ap"]) == pytest.approx((100, 100))


def test_what_is_covered_is_not_in_a_box() -> None:
    """Of four columns three are covered: difficult; of twenty pixels nineteen: not annotated."""
    rows = np.zeros((3, 5, 4), bool)
    rows[0] = True
    rows[1, :1] = True
    rows[2, :, 1:] = True
    first, last = _visible([("a", rows[0]), ("b", rows[2])])
    assert (first.name, first.difficult, first.box) == ("a", True, (1, 1, 1, 5))
    assert (last.name, last.difficult, last.box) == ("b", False, (2, 1, 4, 5))
    covering = np.ones((5, 4), bool)
    covering[0, 0] = False
    [alone] = _visible([("a", rows[0]), ("c", covering)])
    assert alone.name == "c"
    assert [one.name for one in _visible([("b", rows[2]), ("a", rows[1])])] == ["b", "a"]


def test_workers_and_interruptions_change_nothing(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    write_detection_set(out, SMALL, workers=2)
    (out / "detection.json").rename(out / "detection.json.unfinished")
    (out / "VOC2007/Annotations/000002.xml").unlink()
    write_detection_set(out, SMALL, workers=1)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert len(files) == 2 * 9 + 3
    assert all((out / path).read_bytes() == (made / path).read_bytes() for path in files)


def test_an_interruption_changes_nothing_of_cocos(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after four photos; nothing of the way is left."""
    out, drawn = tmp_path / "set", []

    def draw(_: DetectionSettings, number: int) -> tuple[np.ndarray, list[Object]]:
        drawn.append(number)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return _drawn(number)

    monkeypatch.setattr("tools.synthetic.detection_data.render", draw)
    with pytest.raises(KeyboardInterrupt):
        write_detection_set(out, COCO, workers=1)
    write_detection_set(out, COCO, workers=1)
    assert drawn == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    files = [sorted(path.relative_to(root) for path in root.rglob("*")) for root in (out, coco)]
    assert files[0] == files[1]
    assert all((out / path).read_bytes() == (coco / path).read_bytes() for path in files[0] if path.suffix)


def test_other_settings(made: Path) -> None:
    with pytest.raises(UserError, match="made with seed=3, asked for is seed=4"):
        write_detection_set(made, DetectionSettings(photos=6, test_photos=3, side=96, seed=4), workers=1)
    with pytest.raises(UserError, match="made with layout=voc, asked for is layout=coco"):
        write_detection_set(made, COCO, workers=1)
    with pytest.raises(UserError, match="--side=63: give at least 64"):
        DetectionSettings(side=63)
    with pytest.raises(UserError, match="--layout=yolo: give one of voc, coco"):
        DetectionSettings(layout="yolo")


def test_a_set_of_before_there_were_layouts(made: Path, tmp_path: Path) -> None:
    """Is VOC's."""
    out = shutil.copytree(made, tmp_path / "set")
    settings = json.loads((out / "detection.json").read_text())
    kept = {key: value for key, value in settings.items() if key not in ("layout", "digest")}
    (out / "detection.json").write_text(json.dumps(kept))
    write_detection_set(out, SMALL, workers=1)
