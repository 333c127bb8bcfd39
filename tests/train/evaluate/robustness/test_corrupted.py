"""ImageNet-C: its layouts, and the means of a table whose accuracies are known."""

from pathlib import Path

import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers.robust_sets import PARTIAL, evaluate, network, open_one, touch
from train.evaluate.robustness.corrupted import EXTRA_CORRUPTIONS, is_corrupted
from train.evaluate.robustness.imagenet import CORRUPTIONS
from train.evaluate.robustness.sets import open_set
from train.evaluate.robustness.source import SetOptions

TENCH, GOLDFISH, SHARK = "n01440764", "n01443537", "n01484850"
CELLS = [
    (category, corruption, str(severity))
    for category, corruptions in {**CORRUPTIONS, "extra": EXTRA_CORRUPTIONS}.items()
    for corruption in corruptions
    for severity in range(1, 6)
]


def photos(with_categories: bool, extra: bool = True) -> list[str]:
    """Two photos of every corruption and severity."""
    return [
        f"{f'{category}/' if with_categories else ''}{corruption}/{severity}/{name}/a.JPEG"
        for category, corruption, severity in CELLS
        for name in (TENCH, GOLDFISH)
        if extra or category != "extra"
    ]


def answer(file: str) -> dict[str, float]:
    """Tenches are known up to severity 4, goldfish under Gaussian noise alone; sharks are the answer else,
    which no folder is of."""
    *_, corruption, severity, name, _ = file.split("/")
    known = severity != "5" if name == TENCH else corruption == "gaussian_noise"
    return {name: 1.0} if known and corruption not in EXTRA_CORRUPTIONS else {SHARK: 2.0, name: 1.0}


@pytest.mark.parametrize("with_categories", [False, True])
def test_means_of_accuracies(tmp_path: Path, with_categories: bool) -> None:
    one = open_one("imagenet-c", touch(tmp_path, *photos(with_categories)), options=SetOptions())
    result = evaluate(one, {file: answer(file) for file in one.files})
    table = result.pop("table")
    extra = table.pop("extra")
    assert list(table) == [corruption for names in CORRUPTIONS.values() for corruption in names]
    assert table["gaussian_noise"] == {"1": 1.0, "2": 1.0, "3": 1.0, "4": 1.0, "5": 0.5}
    assert table["fog"] == {"1": 0.5, "2": 0.5, "3": 0.5, "4": 0.5, "5": 0.0}
    assert extra == {name: dict.fromkeys("12345", 0.0) for name in EXTRA_CORRUPTIONS}
    by_corruption = result.pop("by_corruption")
    assert by_corruption.pop("gaussian_noise") == 0.9
    assert set(by_corruption.values()) == {0.4}
    assert len(by_corruption) == 14
    assert result == {
        "value": 0.4333,  # (0.9 + 14 × 0.4) / 15
        "metric": "mean top-1 accuracy over corruptions and severities",
        "photos": 150,
        "cells": "75 of 75",
        "by_category": {"noise": 0.5667, "blur": 0.4, "weather": 0.4, "digital": 0.4},
        "by_severity": {"1": 0.5333, "2": 0.5333, "3": 0.5333, "4": 0.5333, "5": 0.0333},
        "mce": 0.7385,  # (0.1 / 0.886428 + 0.6 × 18.2736) / 15: the sum of the other 14 errors' inverses
        "mce_normaliser": "AlexNet's mean errors (Hendrycks and Dietterich 2019)",
    }
    assert (one.protocol, one.resize, one.border) == ("imagenet-c", None, 0)
    assert one.record == {"found": {"photos": 190, "classes": 2}, "photos_per_cell": 2}


def test_a_perfect_classifier_has_no_error(tmp_path: Path) -> None:
    one = open_one("imagenet-c", touch(tmp_path, *photos(True, extra=False)))
    result = evaluate(one, {file: {file.split("/")[-2]: 1.0} for file in one.files})
    assert (result["value"], result["mce"]) == (1.0, 0.0)
    assert "extra" not in result["table"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    files = [file for file in photos(True) if file.startswith("noise/") and "/5/" not in file]
    one = open_one("mine", touch(tmp_path, *files), options=SetOptions())
    assert one.protocol == "imagenet-c"
    assert one.record is not None
    assert one.record["missing"] == [
        *(name for names in CORRUPTIONS.values() for name in names if not name.endswith("_noise")),
        *("gaussian_noise/5", "shot_noise/5", "impulse_noise/5"),
    ]
    result = evaluate(one, {file: answer(file) for file in one.files})
    assert result["value"] == 0.6667  # 1, 0.5, 0.5
    assert (result["mce"], result["cells"]) == (None, "12 of 75")
    assert result["by_category"] == {"noise": 0.6667, "blur": None, "weather": None, "digital": None}
    assert result["by_severity"] == {"1": 0.6667, "2": 0.6667, "3": 0.6667, "4": 0.6667, "5": None}


def test_extra_corruptions_alone_have_no_value(tmp_path: Path) -> None:
    one = open_one("mine", touch(tmp_path, f"gaussian_blur/1/{TENCH}/a.jpeg"))
    result = evaluate(one, {one.files[0]: {TENCH: 1.0}})
    assert (result["value"], result["photos"], result["mce"]) == (None, 0, None)
    assert result["table"] == {"extra": {"gaussian_blur": {"1": 1.0}}}


def test_photos_that_could_not_be_read_do_not_count(tmp_path: Path) -> None:
    files = [f"fog/{severity}/{TENCH}/{photo}.jpg" for severity in "12" for photo in "ab"]
    one = open_one("mine", touch(tmp_path, *files))
    answers = {file: {TENCH: 1.0} if file.endswith("a.jpg") else {SHARK: 1.0} for file in files}
    result = evaluate(one, answers, unread=(files[1], files[2], files[3]))
    assert result["table"] == {"fog": {"1": 1.0}}
    assert (result["value"], result["photos"]) == (1.0, 1)
    assert evaluate(one, answers, unread=tuple(files))["value"] is None


def test_uneven_cells_are_refused_unless_wanted(tmp_path: Path) -> None:
    touch(tmp_path, *photos(False))
    (tmp_path / "fog" / "3" / TENCH / "a.JPEG").unlink()
    with pytest.raises(UserError, match=r"1 of its 95 .* fewer photos than others' 2: fog/3 \(1\)"):
        open_set("imagenet-c", tmp_path, network())
    one = open_one("imagenet-c", tmp_path, options=PARTIAL)
    assert one.record is not None
    assert one.record["uneven"] == ["fog/3 (1)"]


def test_a_corruption_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, f"fog/1/{TENCH}/a.jpg", f"weather/fog/2/{TENCH}/a.jpg")
    with pytest.raises(UserError, match=r"fog is there twice, fog and weather/fog"):
        open_set("imagenet-c", tmp_path, network())


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            ["fog/1/bird.jpeg"],
            r"is not laid out as ImageNet-C .* \(fog\), with photos like fog/1/bird.jpeg",
        ),
        ([f"{TENCH}/a.jpg"], r"has folders named by wnids, 1 of ImageNet's 1000"),
        ([f"fog/1/{TENCH}/a.jpg", f"fog/6/{TENCH}/a.jpg"], rf"1 of its 2 photos .*: fog/6/{TENCH}/a.jpg"),
        ([f"fog/1/{TENCH}/a.jpg", f"mist/1/{TENCH}/a.jpg"], rf"1 of its 2 photos .*: mist/1/{TENCH}/a.jpg"),
        (["fog/1/wasp/a.jpg"], r"1 of its 1 folders are no classes of made: wasp"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, files: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        open_set("imagenet-c", touch(tmp_path, *files), network())


def test_another_classifiers_classes_by_name(tmp_path: Path) -> None:
    """AlexNet's errors on ImageNet say nothing of other classes."""
    classes = ["ant", "bee"]
    files = [f"{corruption}/{severity}/bee/a.jpg" for _, corruption, severity in CELLS]
    one = open_one("mine", touch(tmp_path, *files), network(classes))
    result = evaluate(one, {file: {"bee": 1.0} for file in files}, classes)
    assert (result["value"], result["cells"], result["mce"]) == (1.0, "75 of 75", None)


def test_crops_of_another_size_are_said_and_too_large_ones_refused(tmp_path: Path) -> None:
    file = tmp_path / "fog" / "1" / TENCH / "a.png"
    file.parent.mkdir(parents=True)
    Image.new("RGB", (300, 224)).save(file)
    assert "crop" not in (open_one("imagenet-c", tmp_path).record or {})
    smaller = open_one("imagenet-c", tmp_path, network(size=160)).record
    assert smaller is not None
    assert smaller["crop"] == "160 px, another than the 224 px of ImageNet-C"
    with pytest.raises(UserError, match=r"a.png is 300 x 224, smaller than the crop of 256 pixels"):
        open_set("imagenet-c", tmp_path, network(size=256))


@pytest.mark.parametrize(
    ("file", "found"),
    [
        (f"fog/1/{TENCH}/a.jpg", True),
        (f"weather/fog/1/{TENCH}/a.jpg", True),
        ("fog/a.jpg", False),  # a class of that name
        (f"ImageNet-C/weather/fog/1/{TENCH}/a.jpg", False),
        ("a.jpg", False),
    ],
)
def test_recognition(tmp_path: Path, file: str, found: bool) -> None:
    assert is_corrupted(touch(tmp_path, file)) is found
