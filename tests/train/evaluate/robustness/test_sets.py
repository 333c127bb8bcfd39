"""Protocols: by name or by layout, and for which classifiers."""

import os
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.config import validate
from dali_bgaug.errors import UserError
from tests.helpers.robust_sets import PARTIAL, network, touch
from train.evaluate.robustness.imagenet import IMAGENET_A, IMAGENET_R, WNIDS
from train.evaluate.robustness.sets import PROTOCOLS, open_set, protocol_of
from train.evaluate.robustness.source import SetOptions

DIGITS = [f"digit {number}" for number in range(10)]


def test_classes_of_imagenet_and_its_offspring() -> None:
    assert len(WNIDS) == 1000
    assert list(WNIDS) == sorted(set(WNIDS))
    assert (WNIDS[0], WNIDS[134], WNIDS[517], WNIDS[999]) == (
        "n01440764",
        "n02012849",
        "n03126707",
        "n15075141",
    )
    assert (len(IMAGENET_A), len(IMAGENET_R)) == (200, 200)
    assert len({*IMAGENET_A} & {*IMAGENET_R}) == 86
    assert [WNIDS.index(wnid) for wnid in IMAGENET_A[:3]] == [6, 11, 13]
    assert [WNIDS.index(wnid) for wnid in IMAGENET_R[:3]] == [1, 2, 4]


def test_how_photos_are_shown() -> None:
    """(short side over the crop's, border)"""
    assert {name: (entry.resize, entry.border) for name, entry in PROTOCOLS.items()} == {
        **dict.fromkeys(["real", "imagenet-v2", "imagenet-a", "imagenet-r"], (8 / 7, 0)),
        **dict.fromkeys(["fgsm", "cue-conflict", "imagenet-9", "folders"], (8 / 7, 0)),
        "objectnet": (1.0, 2),
        "imagenet-c": (None, 0),
    }


@pytest.mark.parametrize(
    ("name", "file", "protocol"),
    [
        ("imagenet-a", "fog/1/ant/a.jpg", "imagenet-a"),
        ("only-fg-imagenet-a", "n01498041/a.jpg", "folders"),
        ("mine", "fog/1/ant/a.jpg", "imagenet-c"),
        ("mine", "noise/shot_noise/5/ant/a.jpg", "imagenet-c"),
        ("imagenet-9", "original/val/00_dog/a.jpg", "imagenet-9"),
    ],
)
def test_protocols_by_name_or_layout(tmp_path: Path, name: str, file: str, protocol: str) -> None:
    assert protocol_of(name, touch(tmp_path, file)) == protocol


@pytest.mark.parametrize(
    ("name", "meant"),
    [("FGSM", "fgsm"), ("imagenet_a", "imagenet-a"), ("ReaL", "real"), ("ImageNet9", "imagenet-9")],
)
def test_a_protocol_in_another_spelling_is_no_set_of_ones_own(tmp_path: Path, name: str, meant: str) -> None:
    """Or photos that nobody attacked would stand under FGSM."""
    with pytest.raises(UserError, match=f"--set {name}=.*: the protocol is called {meant};"):
        open_set(name, touch(tmp_path, "n01440764/a.jpg"), network())


@pytest.mark.parametrize(
    "name", ["real", "imagenet-v2", "objectnet", "imagenet-a", "imagenet-r", "cue-conflict"]
)
def test_protocols_that_need_all_of_imagenets_classes(tmp_path: Path, name: str) -> None:
    (tmp_path / "real.json").write_text("[" + ", ".join(["[]"] * 50_000) + "]")
    touch(tmp_path, "n01440764/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match=r"made has 0 of these among its 10 \(digit 0, digit 1"):
        open_set(name, tmp_path, network(DIGITS), PARTIAL)
    with pytest.raises(UserError, match=r"made has 999 of these among its 999"):
        open_set(name, tmp_path, network([*WNIDS[1:]]), PARTIAL)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for name in PROTOCOLS.keys() - {"imagenet-9"} | {"mine"}:
        with pytest.raises(UserError, match=rf"--set {name}=.*nowhere"):
            open_set(name, tmp_path / "nowhere", network())


@pytest.mark.parametrize("name", ["mine", "imagenet-v2", "imagenet-c", "imagenet-a"])
@pytest.mark.parametrize("where", [".", "n01440764"])
def test_a_folder_that_cannot_be_listed(
    tmp_path: Path, name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by root, who may list them all."""
    forbidden = touch(tmp_path, "n01440764/a.jpg", "n01443537/a.jpg") / where
    listed = os.scandir, os.listdir

    def refuse(place: Any, number: int) -> Any:
        if Path(place) == forbidden:
            raise PermissionError(13, "Permission denied", str(place))
        return listed[number](place)

    monkeypatch.setattr(os, "scandir", lambda place: refuse(place, 0))
    monkeypatch.setattr(os, "listdir", lambda place: refuse(place, 1))
    with pytest.raises(UserError, match=rf"--set {name}=.*\n.*cannot be listed \(Permission denied\)"):
        open_set(name, tmp_path, network())


def test_a_folder_without_photos(tmp_path: Path) -> None:
    touch(tmp_path, "ant/notes.txt", "._a.jpg")
    with pytest.raises(UserError, match=r"--set mine=.*no photos .*\n.*txt files.*\n.*hidden files"):
        open_set("mine", tmp_path, network())


def test_photos_of_all_parts_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/ant/a.jpg", "val/ant/a.jpg")
    with pytest.raises(UserError, match=r"its folders are train, val"):
        open_set("mine", tmp_path, network(["ant"]))


def test_flat_photos_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has 2 photos in no folders \(a.jpg, b.png\)"):
        open_set("mine", touch(tmp_path, "a.jpg", "b.png"), network())


def test_imagenet_9_has_a_function_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="imagenet-9"):
        open_set("imagenet-9", tmp_path, network())


def test_labels_that_nobody_would_read_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "n01440764/a.jpg", "n01443537/a.jpg")
    with pytest.raises(
        UserError, match=r"--set mine=.*: labels=real.json: only of real, objectnet, imagenet-9;"
    ):
        open_set("mine", tmp_path, network(), SetOptions(labels=Path("real.json")))


def test_options_are_checked() -> None:
    assert validate(SetOptions, {"labels": "/data/real.json"}, "sets.yaml").labels == Path("/data/real.json")
    for wrong in ({"epsilon": 0}, {"epsilon": 300}, {"partial": 1}, {"label": "x"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            validate(SetOptions, wrong, "sets.yaml")
