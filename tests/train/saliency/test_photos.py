"""Photos and maps at the training size."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers.saliency import write_scenes, write_store
from train.saliency.photos import PhotoSet, prepare


def _prepare(folder: Path, out: str = "data", photo_list: Path | None = None, workers: int = 1) -> PhotoSet:
    maps = {voter: folder / voter for voter in ("near", "far")}
    return prepare(folder / "photos", maps, 32, photo_list, folder / out, workers)


def test_photos_are_squares_in_order_of_their_names(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3)
    data = _prepare(tmp_path)
    assert data.keys == ["a/00.png", "a/01.png", "a/02.png"]
    photos, maps = np.load(data.photos), np.load(data.maps("far", 0))
    assert (photos.shape, photos.dtype, maps.shape, maps.dtype) == (
        (3, 32, 32, 3),
        np.uint8,
        (3, 32, 32),
        np.uint8,
    )
    with Image.open(tmp_path / "photos/a/01.png") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(photos[1], expected)


def test_orientation_is_applied(tmp_path: Path) -> None:
    """The mask tools see photos upright, so the maps are of those."""
    (tmp_path / "photos").mkdir()
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for key in ("a.jpg", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / "photos" / key, exif=exif, quality=95)
    for voter in ("near", "far"):
        write_store(tmp_path / voter, ["a.jpg", "b.jpg"], np.zeros((2, 64, 64), np.uint8))
    photo = np.load(_prepare(tmp_path).photos)[0]
    assert photo[:12].min() > 200
    assert photo[20:].max() < 50


def test_photos_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    write_scenes(tmp_path, 4)
    (tmp_path / "photos/a/01.png").write_bytes(b"\x89PNG damaged")
    shutil.rmtree(tmp_path / "far")
    write_store(tmp_path / "far", ["a/00.png", "a/01.png", "a/02.png"], np.full((3, 64, 64), 9, np.uint8))
    data = _prepare(tmp_path, workers=2)
    assert data.keys == ["a/00.png", "a/02.png"]
    assert data.left_out["a/03.png"] == "no map by far"
    assert data.left_out["a/01.png"].startswith("cannot be decoded")
    assert [len(np.load(path)) for path in (data.photos, data.maps("near", 0), data.maps("far", 0))] == [
        2,
        2,
        2,
    ]


def test_they_are_prepared_once(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3)
    first = _prepare(tmp_path)
    shutil.rmtree(tmp_path / "photos")
    assert _prepare(tmp_path) == first
    shutil.rmtree(tmp_path / "far")
    write_store(tmp_path / "far", ["a/00.png", "a/01.png"], np.zeros((2, 64, 64), np.uint8), "other")
    with pytest.raises(UserError, match="data: holds other photos or maps than are given now"):
        _prepare(tmp_path)


def test_a_list_says_which_photos(tmp_path: Path) -> None:
    write_scenes(tmp_path, 4)
    listed = tmp_path / "list.txt"
    listed.write_text("a/03.png\na/01.png\nb/01.png\n\n")
    data = _prepare(tmp_path, photo_list=listed)
    assert data.keys == ["a/01.png", "a/03.png"]
    assert data.left_out == {"b/01.png": "no map by near, far"}
    with pytest.raises(UserError, match="photo_list=.*none.txt: cannot be read"):
        _prepare(tmp_path, "other", tmp_path / "none.txt")


def test_a_photo_that_cannot_be_read_is_not_left_out(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3)
    (tmp_path / "photos/a/01.png").unlink()
    with pytest.raises(UserError, match="01.png: cannot be read"):
        _prepare(tmp_path)
    assert not (tmp_path / "data/photos.json").exists()


def test_no_photos(tmp_path: Path) -> None:
    write_scenes(tmp_path, 1)
    with pytest.raises(UserError, match="1 of 1 photos can be used, at least 2 are needed"):
        _prepare(tmp_path)
    shutil.rmtree(tmp_path / "near")
    with pytest.raises(UserError, match="maps.near=.*does not exist"):
        _prepare(tmp_path)
