"""Photos on their way into a shard: which way up, how large."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.decoding import Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.tiles import fill
from tests.conftest import save
from tests.tools.test_shards import pack, read_samples, scene, stores
from tools.photos import open_photo
from tools.shard_photos import PhotoOptions

# --- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_mask_and_tile_stand_the_same_way_up(tmp_path: Path, orientation: int) -> None:
    photo, mask = scene()
    photo[mask] = 255  # the object is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "p.jpg", quality=95, exif=exif)
    upright = np.asarray(open_photo(tmp_path / "photos" / "p.jpg"))
    white = (upright > 200).all(axis=2)
    Image.fromarray(white).save(tmp_path / "masks" / "p.png")
    stores(tmp_path)
    pack(tmp_path)
    (sample,) = read_samples(tmp_path).values()
    decoded = Decoder().decode(sample.photo)
    assert decoded.shape[:2] == white.shape
    tile = fill(decoded, sample.tile).astype(int)
    outside = ~np.asarray(Image.fromarray(white).resize(white.shape[::-1]))
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    outside[max(rows[0] - 8, 0) : rows[-1] + 9, max(columns[0] - 8, 0) : columns[-1] + 9] = False
    assert np.abs(tile - upright)[outside].mean() < 6  # the background is where it is in the photo
    assert not (tile > 240).all(axis=2).any()
    square = np.asarray(Image.fromarray(white).resize((256, 256), Image.Resampling.NEAREST))
    assert (sample.mask & square).sum() / (sample.mask | square).sum() > 0.95


def _with_exif(photo: np.ndarray, exif: bytes) -> bytes:
    Image.fromarray(photo).save(buffer := io.BytesIO(), "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def _orientation_as_long(value: int) -> bytes:
    """An EXIF block, big-endian, whose orientation is a LONG where a SHORT should be."""
    entry = struct.pack(">HHII", 0x0112, 4, 1, value)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)


def test_decoders_that_turn_a_photo_differently_are_noticed_by_its_pixels(tmp_path: Path) -> None:
    """A half turn does not show in the size: what is packed must look as the mask tool saw it."""
    photo, mask = scene()
    save(tmp_path, "p", photo, mask)
    data = _with_exif(photo, _orientation_as_long(3))
    (tmp_path / "photos" / "p.jpg").write_bytes(data)
    seen = np.asarray(open_photo(tmp_path / "photos" / "p.jpg")).astype(int)
    assert np.abs(seen - Decoder().decode(data).astype(int)).mean() > 50
    stores(tmp_path)
    with pytest.raises(UserError, match="every photo was left out"):
        pack(tmp_path)
    pack(tmp_path, "again", photo_options=PhotoOptions(reencode=True))
    (sample,) = read_samples(tmp_path, "again").values()
    assert np.abs(Decoder().decode(sample.photo).astype(int) - seen).mean() < 5


def test_orientation_in_xmp_is_ignored_as_in_training(tmp_path: Path) -> None:
    photo, _ = scene()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="3"/></x:xmpmeta>'
    Image.fromarray(photo).save(tmp_path / "p.jpg", quality=95, xmp=xmp)
    seen = np.asarray(open_photo(tmp_path / "p.jpg")).astype(int)
    assert np.abs(seen - Decoder().decode((tmp_path / "p.jpg").read_bytes())).mean() < 1
    assert np.abs(seen - photo).mean() < 10


# --- smaller photos


def test_large_photos_are_made_smaller_if_asked_for(tmp_path: Path) -> None:
    mask = np.zeros((300, 400), bool)
    mask[100:200, 100:200] = True
    rng = np.random.default_rng(0)
    save(tmp_path, "large", rng.integers(0, 256, (300, 400, 3), dtype=np.uint8), mask)
    save(tmp_path, "small", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), mask[::10, ::10])
    stores(tmp_path)
    report = pack(tmp_path, photo_options=PhotoOptions(max_side=200))
    samples = read_samples(tmp_path)
    assert [Decoder().size(samples[key].photo) for key in ("large", "small")] == [(200, 150), (40, 30)]
    assert samples["large"].tile.tolist() == [48, 48, 102, 102, 0, 102, 150, 98]
    assert samples["small"].tile.tolist() == [7, 7, 23, 23, 0, 23, 30, 17]
    before = (tmp_path / "photos" / "large.jpg").stat().st_size
    assert report.counts == {"shrunk": 1, "bytes_saved": before - len(samples["large"].photo)}
    assert samples["small"].photo == (tmp_path / "photos" / "small.jpg").read_bytes()
    with pytest.raises(UserError, match="--max-side=8: must be at least 32"):
        pack(tmp_path, "other", photo_options=PhotoOptions(max_side=8))
