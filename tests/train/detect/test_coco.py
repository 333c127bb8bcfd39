"""COCO's metric of boxes and masks."""

import json
import sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from tests.helpers.detect import read_config
from train.detect.coco import CocoDetections, compress_masks, evaluate_coco
from train.detect.training import train

pytest.importorskip("pycocotools")


def _truth(path: Path) -> Path:
    """Two photos with a rectangle each, of 10 x 10 and 20 x 10 pixels."""
    boxes = {7: (5, 5, 10, 10), 8: (0, 0, 20, 10)}
    annotations = [
        {
            "id": number,
            "image_id": number,
            "category_id": 18,
            "iscrowd": 0,
            "bbox": [x, y, w, h],
            "area": w * h,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for number, (x, y, w, h) in boxes.items()
    ]
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30} for number in boxes]
    categories = [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]
    values = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(values))
    return path


def _found(box: tuple[int, int, int, int], masks: bool = False) -> CocoDetections:
    left, top, right, bottom = box
    mask = np.zeros((1, 1, 30, 40))
    mask[..., top:bottom, left:right] = 0.6
    written = compress_masks(mask) if masks else None
    return CocoDetections(np.array([box], float), np.array([1]), np.array([0.9]), written, (30, 40))


@pytest.mark.parametrize("masks", [False, True])
def test_found_and_missed(tmp_path: Path, masks: bool) -> None:
    """One of two, exactly: precision 1 up to a recall of .5, 51 of COCO's 101 points."""
    scores = evaluate_coco(_truth(tmp_path / "t.json"), {"7": _found((5, 5, 15, 15), masks)}, [3, 18])
    assert set(scores) == ({"boxes", "masks"} if masks else {"boxes"})
    for one in scores.values():
        assert (one["ap"], one["ap50"], one["ap75"]) == pytest.approx((100 * 51 / 101,) * 3)
        assert (one["ap_small"], one["ap_large"]) == (pytest.approx(100 * 51 / 101), -1)


def test_a_box_that_is_wide(tmp_path: Path) -> None:
    """An overlap of 10 / 14, so right at .5 to .7: five of ten thresholds."""
    found = {"7": _found((5, 5, 19, 15)), "8": _found((0, 0, 20, 10))}
    one = evaluate_coco(_truth(tmp_path / "t.json"), found, [3, 18])["boxes"]
    assert one["ap50"] == pytest.approx(100)
    assert one["ap75"] < 100
    assert evaluate_coco(tmp_path / "t.json", {}, [3, 18])["boxes"]["ap"] == 0


def test_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is read or written, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    config = {"data": str(tmp_path / "missing"), "layout": "coco", "train": ["a"], "test": ["b"]}
    with pytest.raises(
        UserError, match=r"layout=coco: .* needs pycocotools .*; pip install -e '.\[detect\]'"
    ):
        train(read_config(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("extra", ["detect", "test"])
def test_the_extras_have_it(extra: str) -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[3] / "setup.cfg")
    assert "pycocotools" in setup["options.extras_require"][extra].split()
