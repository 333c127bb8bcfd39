"""Photos of the experiment: split or not, packed once, few labels, and refused where they are others."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from dali_bgaug.shards import open_shards, read_manifest
from tools.study import experiment_data
from tools.study.experiment_data import own_photos, prepare


def _tree(folder: Path, photos: int) -> None:
    """Photos of two classes with a square in the middle, and masks of it."""
    for name, colour in {"cat": 200, "dog": 90}.items():
        for number in range(photos):
            pixels = np.full((48, 64, 3), colour - number, np.uint8)
            mask = np.zeros((48, 64), np.uint8)
            mask[16:32, 24:40] = 255
            for place, image in {"photos": pixels, "masks": mask}.items():
                path = folder.parent / place / folder.name / name / f"{number}.{place[0]}"
                path = path.with_suffix(".jpg" if place == "photos" else ".png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)


@pytest.fixture(autouse=True)
def without_corruptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment_data, "find_spec", lambda name: None)


def _count(shards: Path) -> int:
    return open_shards(shards).samples


def test_photos_in_one_folder_are_split(tmp_path: Path) -> None:
    """Of each class a fifth is held out; a tenth of the others is labelled."""
    _tree(tmp_path / "all", 10)
    photos, masks, out = tmp_path / "photos" / "all", tmp_path / "masks" / "all", tmp_path / "out"
    source = own_photos(photos, masks, None, None, out)
    assert source.record["source"]["data"] == "all"
    assert source.record["source"]["detector"] == "import"
    found = prepare(source, 32, out, 1)
    assert found.photos == {"train": 16, "few": 2, "test": 4}
    assert found.corrupted is None
    assert not (out / "held_out" / "masks").exists()  # they have one store
    train, test, few = ((out / f"{name}.txt").read_text().split() for name in ("data", "held_out", "few"))
    assert len({*train, *test}) == 20 and {*few} < {*train}
    assert read_manifest(found.few, "").options["subset"]["photos"] == 2
    assert len(list(found.original.rglob("*.png"))) == 4
    before = found.shards.joinpath("manifest.json").stat().st_mtime_ns
    assert prepare(own_photos(photos, masks, None, None, out), 32, out, 1) == found
    assert found.shards.joinpath("manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="made from other photos, masks, backgrounds or options"):
        prepare(own_photos(photos, None, "rbd", None, out), 32, out, 1)
    for name in ("data", "held_out", "few"):  # as that error says: but runs were trained on them
        shutil.rmtree(out / name)
    (photos / "cat" / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"packed.json: the experiment there is of other photos or masks"):
        prepare(own_photos(photos, masks, None, None, out), 32, out, 1)


def test_photos_in_train_and_val_are_not_split(tmp_path: Path) -> None:
    for name, count in {"train": 4, "val": 2}.items():
        _tree(tmp_path / name, count)
    out = tmp_path / "out"
    found = prepare(own_photos(tmp_path / "photos", tmp_path / "masks", None, None, out), 32, out, 1)
    assert found.photos == {"train": 8, "few": 2, "test": 4}


def test_bad_choices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data="):
        own_photos(tmp_path / "none", None, None, None, tmp_path / "out")
    with pytest.raises(UserError, match="--detector u2net: give --weights"):
        own_photos(tmp_path, None, "u2net", None, tmp_path / "out")
