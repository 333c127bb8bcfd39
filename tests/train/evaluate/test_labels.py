"""Fine-tuning on 1 % or 10 % of the labels: what the manifest must say."""

from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.shards import read_manifest, write_manifest
from train.evaluate.labels import labels_of


@pytest.fixture
def subset(coloured: Path, tmp_path: Path) -> Path:
    """The manifest of 36 photos in three classes, 36 of 360 on a list."""
    return _say(coloured, tmp_path, {"list": "10percent.txt", "sha256": "ab", "photos": 36, "of": 360})


def _say(coloured: Path, folder: Path, subset: dict[str, Any]) -> Path:
    manifest = read_manifest(coloured)
    options = {**manifest.options, "subset": subset}
    write_manifest(folder, manifest.model_copy(update={"options": options}))
    return folder


def test_a_subset_is_what_its_manifest_says(subset: Path) -> None:
    found = {"photos": 36, "of": 360, "list": "10percent.txt", "list_sha256": "ab"}
    assert labels_of(subset, 10) == labels_of(subset, 1, any_subset=True) == found


def test_another_share_is_refused(subset: Path) -> None:
    with pytest.raises(UserError, match=r"36 of 360 photos \(10percent.txt\), 10.00% of .*not --percent=1; "):
        labels_of(subset, 1)


@pytest.mark.parametrize(("photos", "of", "fits"), [(36, 330, True), (36, 329, False), (36, 391, False)])
def test_each_class_may_be_a_photo_off(
    coloured: Path, tmp_path: Path, photos: int, of: int, fits: bool
) -> None:
    """Three classes, 10 %: 33 to 39 photos of 330 to 390."""
    said = {"list": "some.txt", "sha256": "ab", "photos": photos, "of": of}
    shards = _say(coloured, tmp_path, said)
    if fits:
        assert labels_of(shards, 10)["of"] == of
    else:
        with pytest.raises(UserError, match=r"not --percent=10"):
            labels_of(shards, 10)


def test_all_labels_are_refused_unless_asked_for(coloured: Path) -> None:
    """Also those of a set that was packed before manifests said so."""
    with pytest.raises(UserError, match=r"nothing of a subset \(36 photos.*--subset .*--any-subset"):
        labels_of(coloured, 1)
    assert labels_of(coloured, 1, any_subset=True) == {"photos": 36}
