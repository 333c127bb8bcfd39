"""The tile store: as geometry, as pixels, and of backgrounds made elsewhere; and what masks are."""

import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.errors import UserError
from dali_bgaug.shards import open_shards, read_samples
from dali_bgaug.tiles import fill
from tests.helpers.offline import pack_photos
from tests.helpers.shards import save
from tools.cli import Part
from tools.offline.detectors.base import scale
from tools.offline.masks import foreground_box
from tools.offline.photos import open_photo
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


def test_threshold_is_on_saliency() -> None:
    saliency = np.zeros((10, 20), np.uint8)
    saliency[2:5, 3:9] = 229  # .898
    assert foreground_box(saliency, 0.9) == (0, 0, 0, 0)
    saliency[3, 4:6] = 230  # .902
    assert foreground_box(saliency, 0.9) == (4, 3, 6, 4)


def test_a_binary_mask_keeps_its_edge_when_shrunk() -> None:
    mask = np.zeros((500, 500), np.uint8)
    mask[101:399, 101:399] = 255
    small = scale(mask, (256, 256))
    assert set(np.unique(small)) == {0, 255}
    assert (small >= 0.9 * 255).mean() == pytest.approx((298 / 500) ** 2, rel=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos with a white square, the last one's mask empty."""
    rng = np.random.default_rng(0)
    for number in range(3):
        small = Image.fromarray(rng.integers(0, 120, (4, 6, 3), dtype=np.uint8))
        photo = np.asarray(small.resize((90 + number, 60), Image.Resampling.BICUBIC)).copy()
        mask = np.zeros(photo.shape[:2], bool)
        mask[20:40, 10:30] = number < 2
        photo[20:40, 10:30] = 255
        save(tmp_path, f"c/{number}", photo, mask)
    pack_photos(tmp_path)
    return tmp_path


def _images(store: Path) -> list[np.ndarray | None]:
    with stores.StoreReader(stores.list_files(store, "--tiles")) as reader:
        jpegs = [reader.tile(0, row) for row in range(3)]
    return [np.asarray(Image.open(io.BytesIO(jpeg))) if jpeg else None for jpeg in jpegs]


def test_geometry_needs_no_photo(folder: Path) -> None:
    for path in (folder / "photos").rglob("*.jpg"):
        path.unlink()
    report = write_tile_store(folder / "mask_store", folder / "again")
    assert (report.photos, report.read) == (3, 0)
    with stores.StoreReader(stores.list_files(folder / "again", "--tiles")) as reader:
        found = [reader.geometry(0, row).tolist() for row in range(3)]
    assert found[0] == [17, 7, 43, 33, 0, 33, 60, 57]
    assert found[2] == [0] * 8


def test_pixels_are_what_geometry_says(folder: Path) -> None:
    write_tile_store(folder / "mask_store", folder / "pixels", photo_folder=folder / "photos", quality=95)
    samples = read_samples(folder / "shards", open_shards(folder / "shards").shards[0])
    geometry = {sample.key: sample.tile for sample in samples}
    for number, image in enumerate(_images(folder / "pixels")):
        if number == 2:
            assert image is None and geometry["c/2"] is None
            continue
        expected = fill(
            np.asarray(open_photo(folder / "photos" / f"c/{number}.jpg")), geometry[f"c/{number}"]
        )
        assert np.abs(image.astype(int) - expected).mean() < 2  # a JPEG lies between
        assert not (image > 240).all(axis=2).any()


def test_backgrounds_made_elsewhere(folder: Path) -> None:
    """One of half the photo's size as PNG, one missing; a flagged photo lends none whatever lies there."""
    tree = folder / "tree" / "c"
    tree.mkdir(parents=True)
    Image.new("RGB", (45, 30), (10, 20, 30)).save(tree / "0.png")
    Image.new("RGB", (92, 60), (10, 20, 30)).save(tree / "2.png")
    report = write_tile_store(folder / "mask_store", folder / "imported", imported=folder / "tree")
    assert report.counts == {"without a background": 1}
    first, *others = _images(folder / "imported")
    assert first.shape == (30, 45, 3)
    assert np.abs(first.astype(int) - [10, 20, 30]).max() <= 2
    assert others == [None, None]
    write_shards(folder / "photos", folder / "mask_store", folder / "imported", folder / "out")
    manifest = open_shards(folder / "out")
    assert (manifest.tiles, manifest.donors) == ("pixels", 1)


def test_backgrounds_that_changed_are_not_taken_for_those_of_before(folder: Path) -> None:
    for tree, level in (("one", 10), ("two", 200)):
        (folder / tree / "c").mkdir(parents=True)
        Image.new("RGB", (90, 60), (level,) * 3).save(folder / tree / "c" / "0.png")
    stores_ = folder / "mask_store", folder / "imported"
    write_tile_store(*stores_, imported=folder / "one")
    assert write_tile_store(*stores_, imported=folder / "one").kept == 1
    write_shards(folder / "photos", *stores_, folder / "out")
    with pytest.raises(UserError, match=r"made from other photos, masks, backgrounds or options"):
        write_tile_store(*stores_, imported=folder / "two")
    (folder / "imported" / stores.file_name(0, 1)).unlink()
    write_tile_store(*stores_, imported=folder / "two")
    with pytest.raises(UserError, match=r"manifest.json: packed from other photos"):
        write_shards(folder / "photos", *stores_, folder / "out")


def test_a_part_may_lie_among_photos_without_a_background(tmp_path: Path) -> None:
    mask = np.zeros((60, 90), bool)
    mask[20:40, 10:30] = True
    for number in range(64):  # of which 32 a file
        save(tmp_path, f"c{number // 32}/{number}", np.zeros((60, 90, 3), np.uint8), mask)
    pack_photos(tmp_path)
    (tmp_path / "tree" / "c0").mkdir(parents=True)
    Image.new("RGB", (90, 60), (10, 20, 30)).save(tmp_path / "tree" / "c0" / "7.webp")
    for number, missing in ((1, 31), (2, 32)):
        report = write_tile_store(
            tmp_path / "mask_store", tmp_path / "imported", imported=tmp_path / "tree", part=Part(number, 2)
        )
        assert report.counts == {"without a background": missing}
    write_shards(tmp_path / "photos", tmp_path / "mask_store", tmp_path / "imported", tmp_path / "out")
    manifest = open_shards(tmp_path / "out")
    assert (manifest.samples, manifest.donors) == (64, 1)


@pytest.mark.parametrize(("size", "fits"), [((512, 341), True), ((512, 344), True), ((512, 346), False)])
def test_a_background_has_its_photos_shape_up_to_a_hundredth(
    tmp_path: Path, size: tuple[int, int], fits: bool
) -> None:
    """Models paint whole blocks of pixels: of a photo of 500 x 333, 512 x 344."""
    mask = np.zeros((333, 500), bool)
    mask[20:40, 10:30] = True
    save(tmp_path, "0", np.zeros((333, 500, 3), np.uint8), mask)
    pack_photos(tmp_path)
    (tmp_path / "tree").mkdir()
    Image.new("RGB", size).save(tmp_path / "tree" / "0.png")
    outcome = nullcontext() if fits else pytest.raises(UserError, match=r"0.png: 512x346 .* is 500x333")
    with outcome:
        write_tile_store(tmp_path / "mask_store", tmp_path / "imported", imported=tmp_path / "tree")


def test_backgrounds_of_another_shape_or_none_are_refused(folder: Path) -> None:
    tree = folder / "tree" / "c"
    tree.mkdir(parents=True)
    with pytest.raises(UserError, match=r"--import=.*: has a background of no photo"):
        write_tile_store(folder / "mask_store", folder / "imported", imported=folder / "tree")
    Image.new("RGB", (60, 90)).save(tree / "0.jpg")
    with pytest.raises(UserError, match=r"0.jpg: 60x90 pixels, but its photo is 90x60"):
        write_tile_store(folder / "mask_store", folder / "imported", imported=folder / "tree")
    (tree / "0.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"0.jpg: not an image"):
        write_tile_store(folder / "mask_store", folder / "imported", imported=folder / "tree")
    assert not list((folder / "imported").glob("*.h5"))


def test_a_store_of_another_kind_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(UserError, match=r"made from other photos, masks, backgrounds or options"):
        write_tile_store(folder / "mask_store", folder / "tile_store", photo_folder=folder / "photos")
