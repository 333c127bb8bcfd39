"""The small detection set: VOC's layout, boxes of what shows, same bytes for the same settings."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tools.synthetic.detection_data import DetectionSettings, _visible, render, write_detection_set
from train.detect.voc_layout import read_voc

SMALL = DetectionSettings(photos=6, test_photos=3, side=96, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detection") / "set"
    write_detection_set(out, SMALL, workers=1)
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
        _, objects = render(SMALL, number)
        for one, (left, top, right, bottom) in zip(objects, photo.objects.boxes.astype(int), strict=True):
            assert one.mask[top:bottom, left:right].sum() == one.mask.sum()
            edges = one.mask[top], one.mask[bottom - 1], one.mask[:, left], one.mask[:, right - 1]
            assert all(edge.any() for edge in edges)


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


def test_other_settings(made: Path) -> None:
    with pytest.raises(UserError, match="made with seed=3, asked for is seed=4"):
        write_detection_set(made, DetectionSettings(photos=6, test_photos=3, side=96, seed=4), workers=1)
    with pytest.raises(UserError, match="--side=63: give at least 64"):
        DetectionSettings(side=63)
