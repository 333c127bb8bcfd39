"""Photos on their way into a shard: which way up, how large."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.decoding import Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.tiles import fill
from tests.helpers.offline import pack, read_samples, scene, stores
from tests.helpers.shards import save
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.photos import BadPhoto, open_photo
from tools.offline.shard_photos import PhotoOptions, _stand_alike
from tools.offline.tiles import write_tile_store

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
    options = ImportOptions(folder=tmp_path / "masks", drawn_on="upright")
    write_mask_store(tmp_path / "photos", options, tmp_path / "ms")
    write_tile_store(tmp_path / "ms", tmp_path / "ts")
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


def _two_blocks(photo: np.ndarray, first: int, second: int) -> bytes:
    """A JPEG of two EXIF blocks."""
    blocks = b""
    for number in (first, second):
        exif = Image.Exif()
        exif[0x0112] = number
        blocks += b"\xff\xe1" + (len(exif.tobytes()) + 2).to_bytes(2, "big") + exif.tobytes()
    Image.fromarray(photo).save(buffer := io.BytesIO(), "JPEG", quality=95)
    data = buffer.getvalue()
    return data[:2] + blocks + data[2:]


@pytest.mark.parametrize(("first", "second"), [(6, 3), (3, 2), (1, 6), (9, 6)])
def test_photos_turned_in_two_ways_are_left_out(tmp_path: Path, first: int, second: int) -> None:
    """Of two EXIF blocks the decoder takes the size by one and the turn by another, if it survives that."""
    photo, _ = scene()
    (tmp_path / "photos").mkdir()
    save(tmp_path, "other", photo, np.ones(photo.shape[:2], bool))
    (tmp_path / "photos" / "p.jpg").write_bytes(_two_blocks(photo, first, second))
    seen = np.asarray(open_photo(tmp_path / "photos" / "p.jpg")).astype(int)
    Image.new("L", seen.shape[1::-1], 255).save(tmp_path / "masks" / "p.png")
    stores(tmp_path)
    report = pack(tmp_path)
    assert [item[:2] for item in report.left_out] == [("p.jpg", "turned differently by the training decoder")]
    pack(tmp_path, "again", photo_options=PhotoOptions(reencode=True))
    sample = read_samples(tmp_path, "again")["p"]
    assert np.abs(Decoder().decode(sample.photo).astype(int) - seen).mean() < 5


@pytest.mark.parametrize("shape", [(40, 60), (40, 40)])
@pytest.mark.parametrize("turn", Image.Transpose)
def test_turns_are_told_by_the_pixels(turn: Image.Transpose, shape: tuple[int, int]) -> None:
    """Also of a photo that is nearly of one grey."""
    photo = np.random.default_rng(0).integers(120, 124, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(photo)
    other = image.transpose(turn)
    assert _stand_alike(photo, image)
    if other.size == image.size:
        assert not _stand_alike(photo, other)


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


# --- other depths


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(tmp_path: Path, kind: str) -> None:
    """Images that are called .jpg: black, dark, half and white stay what they are."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    levels = np.array([0, 2570, 32896, 65535], np.uint16).repeat(16)[None].repeat(32, axis=0)
    Image.fromarray(levels).save(tmp_path / "photos" / "p.jpg", kind)
    Image.new("L", (64, 32), 255).save(tmp_path / "masks" / "p.png")
    assert np.asarray(open_photo(tmp_path / "photos" / "p.jpg"))[0, ::16, 0].tolist() == [0, 10, 128, 255]
    stores(tmp_path)
    pack(tmp_path, photo_options=PhotoOptions(reencode=True))
    decoded = Decoder().decode(read_samples(tmp_path)["p"].photo)
    assert np.abs(decoded[16, 8::16, 0] - np.array([0, 10, 128, 255])).max() <= 1


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_photos_that_do_not_say_what_white_is_are_none(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.ones((8, 8), kind)).save(tmp_path / "p.jpg", "TIFF")
    with pytest.raises(BadPhoto, match=r"p.jpg: .*do not say what white is"):
        open_photo(tmp_path / "p.jpg")
