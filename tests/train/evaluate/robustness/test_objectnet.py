"""ObjectNet: from a folder to classes of ImageNet, and what counts as right."""

import json
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from tests.helpers.robust_sets import PARTIAL, evaluate, network, open_one, touch
from train.evaluate.robustness.imagenet import WNIDS
from train.evaluate.robustness.sets import open_set
from train.evaluate.robustness.source import SetOptions

FOLDERS = {
    "chair": "Chair",
    "full_sized_towel": "Bath towel",
    "coaster": "Coaster",
    "alarm_clock": "Alarm clock",
}
CLASSES = {
    "Bath towel": "bath towel",
    "Chair": "barber chair; folding chair; rocking chair, rocker",
}
LABELS = {
    **{number: f"label {number}" for number in range(1000)},
    **{134: "crane", 517: "crane", 423: "barber chair", 434: "bath towel", 559: "folding chair"},
    765: "rocking chair, rocker",
}
PHOTOS = ("chair/1.png", "chair/2.png", "chair/3.png", "coaster/1.png", "full_sized_towel/1.png")


def make(root: Path, classes: dict[str, str] = CLASSES, with_lines: bool = False) -> Path:
    """A set of five photos in ObjectNet's layout, with maps as in its archive, or as others have them."""
    touch(root, *(f"images/{photo}" for photo in PHOTOS))
    maps: dict[str, Any] = {"folder_to_objectnet_label": FOLDERS, "objectnet_to_imagenet_1k": classes}
    (root / "mappings").mkdir()
    if with_lines:  # the lines are in an order of their own
        lines = [LABELS[number] for number in reversed(range(1000))]
        (root / "mappings" / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
        maps["pytorch_to_imagenet_2012_id"] = {number: 999 - number for number in range(1000)}
    else:
        maps["imagenet_to_labels"] = LABELS
    for name, values in maps.items():
        (root / "mappings" / f"{name}.json").write_text(json.dumps(values))
    return root


@pytest.mark.parametrize("with_lines", [False, True])
def test_three_metrics_of_one_pass(tmp_path: Path, with_lines: bool) -> None:
    one = open_one("objectnet", make(tmp_path, with_lines=with_lines))
    answers = {
        "chair/1.png": {WNIDS[423]: 1.0},
        "chair/2.png": {WNIDS[559]: 1.0},
        "chair/3.png": {WNIDS[0]: 2.0, WNIDS[765]: 1.0},
        "full_sized_towel/1.png": {WNIDS[434]: 1.0},
    }
    assert evaluate(one, answers) == {
        "value": 0.5,
        "metric": "top-1 accuracy over 1000 classes, right is the first ImageNet class of the photo's folder",
        "photos": 4,
        "accuracies": {"first_of_1000": 0.5, "any_of_1000": 0.75, "any_of_4": 1.0},
    }
    assert (one.border, one.resize) == (2, 1.0)
    assert one.record is not None
    assert len(one.record.pop("maps_digest")) == 64
    assert one.record == {
        "found": {"photos": 4, "classes": 2},
        "expected": {"photos": 18_574, "classes": 113},
        "complete": False,
        "maps": str(tmp_path / "mappings"),
        "outside": {"photos": 1, "classes": 1},
    }


def test_the_folder_of_photos_will_do(tmp_path: Path) -> None:
    one = open_one("objectnet", make(tmp_path) / "images")
    assert (one.folder, len(one.files)) == (tmp_path / "images", 4)
    (tmp_path / "mappings").rename(tmp_path / "maps")
    with pytest.raises(UserError, match=r"no mappings in it or beside it"):
        open_set("objectnet", tmp_path, network(), PARTIAL)
    given = SetOptions(labels=tmp_path / "maps", partial=True)
    assert open_one("objectnet", tmp_path, options=given).files == one.files


def test_a_part_is_refused_unless_wanted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 4 photos of 18574, 2 classes of 113;"):
        open_set("objectnet", make(tmp_path), network())


def test_a_label_of_two_classes_is_refused(tmp_path: Path) -> None:
    """A crane is a bird, and a machine; its number says which."""
    make(tmp_path / "name", CLASSES | {"Coaster": "crane"})
    with pytest.raises(UserError, match=r"'crane' is the label of classes 134 \(\w+\) and 517 \(\w+\)"):
        open_set("objectnet", tmp_path / "name", network(), PARTIAL)
    one = open_one("objectnet", make(tmp_path / "number", CLASSES | {"Coaster": "517"}))
    answers = {file: {WNIDS[517]: 1.0} for file in one.files}
    assert evaluate(one, answers)["accuracies"] == {"first_of_1000": 0.2, "any_of_1000": 0.2, "any_of_5": 0.2}


def test_maps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "label", {"Chair": "throne chair"})
    with pytest.raises(UserError, match=r"'throne chair' is no label of ImageNet's"):
        open_set("objectnet", tmp_path / "label", network(), PARTIAL)
    touch(make(tmp_path / "folder"), "images/throne/1.png")
    with pytest.raises(UserError, match=r"1 of its 4 folders are not in .*: throne"):
        open_set("objectnet", tmp_path / "folder", network(), PARTIAL)
    (make(tmp_path / "none") / "mappings" / "imagenet_to_labels.json").unlink()
    with pytest.raises(UserError, match=r"has neither pytorch_to_imagenet_2012_id.json nor imagenet_to"):
        open_set("objectnet", tmp_path / "none", network(), PARTIAL)
    path = make(tmp_path / "list") / "mappings" / "folder_to_objectnet_label.json"
    path.write_text(json.dumps(FOLDERS | {"chair": ["Chair"]}))
    with pytest.raises(UserError, match=r"label.json: chair has no label but \['Chair'\]"):
        open_set("objectnet", tmp_path / "list", network(), PARTIAL)
    (make(tmp_path / "few") / "mappings" / "imagenet_to_labels.json").write_text('{"0": "tench"}')
    with pytest.raises(UserError, match=r"is no map of ImageNet's 1000 classes"):
        open_set("objectnet", tmp_path / "few", network(), PARTIAL)
