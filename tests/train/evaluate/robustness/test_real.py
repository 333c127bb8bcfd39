"""ReaL: labels are found by file name, whatever folder and order photos are in."""

import json
from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tests.helpers.robust_sets import PARTIAL, evaluate, network, open_one, touch
from train.evaluate.robustness.imagenet import WNIDS
from train.evaluate.robustness.sets import open_set
from train.evaluate.robustness.source import SetOptions

LABELS: dict[int, list[int]] = {1: [5], 2: [], 3: [7, 9], 50_000: [0, 1, 2, 3, 4, 5, 6, 8, 11]}
"""By numbers of photos, which begin with 1."""


def val(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_labels(path: Path, labels: dict[int, list[int]]) -> None:
    path.write_text(json.dumps([labels.get(number, []) for number in range(1, 50_001)]))


def test_flat_photos(tmp_path: Path) -> None:
    write_labels(tmp_path / "real.json", LABELS)
    one = open_one("real", touch(tmp_path, *map(val, LABELS)))
    assert one.files == [val(1), val(3), val(50_000)]
    answers = {val(1): {WNIDS[5]: 1.0}, val(3): {WNIDS[9]: 1.0}, val(50_000): {WNIDS[7]: 1.0}}
    assert evaluate(one, answers) == {
        "value": 0.6667,
        "metric": "ReaL accuracy: the answer is one of the photo's labels",
        "photos": 3,
    }
    assert one.record is not None
    before = one.record.pop("labels_digest")
    assert one.record == {
        "found": {"photos": 4},
        "expected": {"photos": 50_000},
        "complete": False,
        "oddities": {".json files, not taken": {"count": 1, "example": "real.json"}},
        "labels": str(tmp_path / "real.json"),
        "judged": 3,
    }
    write_labels(tmp_path / "real.json", LABELS | {1: [6]})
    assert (open_one("real", tmp_path).record or {})["labels_digest"] != before


def test_photos_in_wnid_folders(tmp_path: Path) -> None:
    """Folders put photo 3 before photo 1; original labels are counted for all photos, ReaL's for three."""
    write_labels(tmp_path / "real.json", LABELS)
    files = {3: f"n01440764/{val(3)}", 1: f"n01443537/{val(1)}", 2: f"n01484850/{val(2)}"}
    one = open_one("real", touch(tmp_path / "val", *files.values()))
    answers = {files[1]: {WNIDS[5]: 1.0}, files[2]: {WNIDS[2]: 1.0}, files[3]: {WNIDS[7]: 1.0}}
    result = evaluate(one, answers)
    assert (result["value"], result["photos"]) == (1.0, 2)
    assert (result["top1"], result["top1_photos"]) == (0.3333, 3)
    assert "accuracies" not in result
    assert one.record is not None
    assert (one.record["judged"], one.record["agreement"]) == (2, 0.0)


def test_a_classifier_in_another_order(tmp_path: Path) -> None:
    backwards = [*reversed(WNIDS)]
    write_labels(tmp_path / "labels.json", LABELS)
    options = SetOptions(labels=tmp_path / "labels.json", partial=True)
    one = open_one("real", touch(tmp_path, val(1), val(3)), network(backwards), options)
    answers = {val(1): {WNIDS[5]: 1.0}, val(3): {WNIDS[994]: 1.0}}  # 994 is column 5
    assert evaluate(one, answers, backwards)["value"] == 0.5


def test_labels_in_another_order_than_the_folders(tmp_path: Path) -> None:
    """By the devkit's numbers, or shifted by a photo, labels agree with hardly any folder."""
    right = {number: [number % 50] for number in range(1, 121)}
    files = [f"{WNIDS[number % 50]}/{val(number)}" for number in right]
    touch(tmp_path / "val", *files)
    write_labels(tmp_path / "real.json", right)
    one = open_one("real", tmp_path / "val")
    assert one.record is not None
    assert one.record["agreement"] == 1.0
    write_labels(tmp_path / "real.json", {number + 1: labels for number, labels in right.items()})
    with pytest.raises(UserError, match=r"only 0% of the photos' folders agree with"):
        open_set("real", tmp_path / "val", network(), PARTIAL)


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "val", val(1))
    with pytest.raises(UserError, match=r"no real.json in it or beside it"):
        open_set("real", tmp_path / "val", network(), PARTIAL)
    write_labels(tmp_path / "real.json", LABELS)
    with pytest.raises(UserError, match=r"has 1 photos of 50000"):
        open_set("real", tmp_path / "val", network())
    touch(tmp_path / "val", "cat.jpg")
    with pytest.raises(UserError, match=r"1 of its 2 photos are not named like .*: cat.jpg"):
        open_set("real", tmp_path / "val", network(), PARTIAL)
    (tmp_path / "val" / "cat.jpg").rename(tmp_path / "val" / val(50_001))
    with pytest.raises(UserError, match=r"there are validation photos 1 to 50000"):
        open_set("real", tmp_path / "val", network(), PARTIAL)


def test_a_photo_counts_once(tmp_path: Path) -> None:
    write_labels(tmp_path / "real.json", LABELS)
    touch(tmp_path, f"n01440764/{val(1)}", f"n01443537/{val(1)}")
    with pytest.raises(UserError, match=r"are one photo"):
        open_set("real", tmp_path, network(), PARTIAL)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[1], [2]]", r"has 2 entries, ReaL 50000"),
        ('{"1": [1]}', r"holds a dict, no list"),
        ("[[1]", r"cannot be read as JSON"),
        (json.dumps([[0]] * 49_999 + [[1000]]), r"entry 49999 is \[1000\]"),
        (json.dumps([[0]] * 49_999 + [7]), r"entry 49999 is 7"),
    ],
)
def test_other_files_than_reals_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(UserError, match=problem):
        open_set("real", touch(tmp_path, val(1)), network(), PARTIAL)
