"""Shards: what is packed and what not, classes and subsets, sizes, parts, a full disk, a million photos."""

import io
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from nvidia.dali import backend
from PIL import Image

from dali_bgaug import shards
from dali_bgaug.decoding import Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.stores import StoreReader, read_entries, write_masks
from tests.helpers.offline import SIZE, pack, read_samples, scene, stores
from tests.helpers.shards import save
from tools.cli import Part
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.photos import open_photo
from tools.offline.report import LeftOut
from tools.offline.shard_photos import PhotoOptions
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store

ROOT = Path(__file__).parents[3]


def _encode(photo: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    Image.fromarray(photo).convert(mode).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of all kinds a data set of a million has, and a good one of each of two classes."""
    photo, mask = scene()
    good = _encode(photo)
    kinds = {
        "a/good": good,
        "b/good2": _encode(photo, quality=80),
        "b/grey": _encode(photo, mode="L"),
        "b/progressive": _encode(photo, progressive=True),
        "b/cmyk": _encode(photo, mode="CMYK"),
        "b/png": _encode(photo, "PNG"),
        "b/webp": _encode(photo, "WEBP"),
        "b/empty": b"",
        "b/garbage": b"no image at all" * 50,
        "b/half": good[: len(good) // 2],
        "b/nearly": good[:-20],
    }
    for name, data in kinds.items():
        save(tmp_path, name, photo, mask)
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(data)
    return tmp_path


# --- bad photos


def test_what_cannot_be_trained_on_is_left_out_and_listed(folder: Path) -> None:
    report = stores(folder)
    assert [item[:2] for item in report.left_out] == [
        ("b/empty.jpg", "empty file"),
        ("b/garbage.jpg", "not an image"),
        ("b/half.jpg", "truncated or damaged"),
        ("b/nearly.jpg", "truncated or damaged"),
    ]
    assert "truncated" in report.left_out[3].detail.lower()
    report = pack(folder)
    assert report.left_out == [
        LeftOut("b/png.jpg", "not a JPEG", "it is a PNG"),
        LeftOut("b/webp.jpg", "not a JPEG", "it is a WEBP"),
    ]
    samples = read_samples(folder)
    assert sorted(samples) == ["a/good", "b/cmyk", "b/good2", "b/grey", "b/progressive"]
    for key, sample in samples.items():
        assert sample.photo == (folder / "photos" / f"{key}.jpg").read_bytes()
    manifest = shards.read_manifest(folder / "shards")
    assert manifest.left_out == [tuple(item) for item in report.left_out]
    assert pack(folder).left_out == report.left_out


def test_they_are_encoded_anew_if_asked_for(folder: Path) -> None:
    stores(folder)
    report = pack(folder, photo_options=PhotoOptions(reencode=True))
    assert (report.left_out, report.counts["reencoded"]) == ([], 3)  # PNG, WebP, CMYK
    samples = read_samples(folder)
    assert len(samples) == 7
    photo = scene()[0].astype(int)
    for key in ("b/png", "b/webp", "b/cmyk"):
        with Image.open(io.BytesIO(samples[key].photo)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZE)
            assert np.abs(np.asarray(image).astype(int) - photo).mean() < 12
    assert samples["a/good"].photo == (folder / "photos" / "a" / "good.jpg").read_bytes()


def test_what_only_the_training_decoder_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that one decoder reads and another does not: the one of training decides."""
    stores(folder)
    victim = (folder / "photos" / "a" / "good.jpg").read_bytes()
    decode = Decoder.decode
    monkeypatch.setattr(
        Decoder, "decode", lambda self, image: None if image == victim else decode(self, image)
    )
    report = pack(folder)
    assert LeftOut("a/good.jpg", "refused by the training decoder") in report.left_out
    report = pack(folder, "again", photo_options=PhotoOptions(reencode=True))
    assert report.left_out == []
    assert read_samples(folder, "again")["a/good"].photo != victim


def test_a_photo_that_changed_or_cannot_be_read_stops_the_shard(folder: Path) -> None:
    stores(folder)
    path = folder / "photos" / "a" / "good.jpg"
    path.write_bytes(_encode(np.zeros((10, 10, 3), np.uint8)))
    with pytest.raises(UserError, match=r"good.jpg: 631 bytes, but 753 when its mask was made; put"):
        pack(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"good.jpg: no such photo"):
        pack(folder)
    assert not list((folder / "shards").glob("*.t*"))  # one shard: nothing, not half of it


def test_too_many_pixels_are_left_out_and_listed(folder: Path) -> None:
    """By the tool that makes masks, and by the packer where it did not."""
    masks = ImportOptions(folder=folder / "masks")
    photo, mask = scene()
    save(folder, "a/small", photo[::2, ::2], mask[::2, ::2])
    report = write_mask_store(folder / "photos", masks, folder / "few", max_pixels=96 * 64 - 1)
    assert report.photos == 1
    large = [item for item in report.left_out if item.reason == "too large"]
    assert (len(large), large[0].photo) == (8, "a/good.jpg")
    assert large[0].detail.startswith("it has 96 x 64 pixels, more than 6,143")
    stores(folder)
    path = folder / "ms" / "00000-of-00003.h5"
    entries = read_entries(path)
    entries.size[entries.keys.index("a/good.jpg")] = 20_000, 10_000
    with StoreReader([path]) as reader:
        saliency = np.array([reader.saliency(0, row) for row in range(len(entries.keys))])
    write_masks(path, saliency, entries)
    pack(folder)
    left_out = shards.read_manifest(folder / "shards").left_out
    assert left_out[0][:2] == ("a/good.jpg", "too large")


def test_nothing_but_bad_photos_is_an_error(tmp_path: Path) -> None:
    photo, mask = scene()
    save(tmp_path, "a", photo, mask)
    (tmp_path / "photos" / "a.jpg").write_bytes(_encode(photo, "PNG"))
    stores(tmp_path)
    with pytest.raises(UserError, match="every photo was left out"):
        pack(tmp_path)
    assert not list((tmp_path / "shards").glob("*.tar"))


# --- sizes, subsets


def test_shards_are_as_large_as_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        photo = rng.integers(0, 256, (80, 80 + number, 3), dtype=np.uint8)
        mask = np.zeros(photo.shape[:2], bool)
        mask[30:50, 30:50] = True
        save(tmp_path, f"{number:02d}", photo, mask)
    stores(tmp_path)
    pack(tmp_path, shard_mb=0.2)
    sizes = [shard.bytes for shard in shards.read_manifest(tmp_path / "shards").shards]
    assert len(sizes) > 3
    assert all(150_000 < size <= 211_000 for size in sizes[:-1])  # the tar's own end is up to 10 kB


def test_the_list_may_name_photos_that_were_left_out(folder: Path) -> None:
    stores(folder)
    (folder / "list.txt").write_text("good.jpg\nempty.jpg\nb/half.jpg\n")
    pack(folder, subset=folder / "list.txt")
    assert list(read_samples(folder)) == ["a/good"]


def test_unfinished_shards_of_other_options_are_not_mixed_up(folder: Path) -> None:
    stores(folder)
    pack(folder, per_shard=2, part=Part(1, 2))
    with pytest.raises(UserError, match=r"shard-0000\d.json: a shard of other photos, masks or options"):
        pack(folder, per_shard=2, seed=1)
    pack(folder, per_shard=2)
    assert len(read_samples(folder)) == 5


def test_a_gpu_that_is_not_there(folder: Path) -> None:
    stores(folder)
    if backend.GetCUDADeviceCount():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="GPU 0 is not on this machine"):
        pack(folder, device="gpu")


def test_only_the_subset_is_packed(folder: Path) -> None:
    stores(folder)
    (folder / "list.txt").write_text("good.jpg\ngrey.jpg\n")
    pack(folder, subset=folder / "list.txt")
    samples = read_samples(folder)
    assert sorted(samples) == ["a/good", "b/grey"]
    assert [samples[key].label for key in ("a/good", "b/grey")] == [0, 1]
    assert shards.read_manifest(folder / "shards").options["subset"] == {
        **{"list": "list.txt", "photos": 2, "of": 7},
        "sha256": "5cca63156d3369b1a0986e02c49149c6540968314cb86007cb0ad782544b80d3",
    }
    pack(folder, subset=folder / "list.txt")


def test_another_subset_of_the_same_classes_is_another_data_set(folder: Path) -> None:
    stores(folder)
    for name in ("good2", "grey"):
        (folder / f"{name}.txt").write_text(f"{name}.jpg\n")
    pack(folder, subset=folder / "good2.txt")
    with pytest.raises(UserError, match=r"manifest.json: packed from other photos"):
        pack(folder, subset=folder / "grey.txt")


# --- parts, a full disk, many photos


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_parts_together_make_what_one_machine_makes(folder: Path, capsys: pytest.CaptureFixture) -> None:
    stores(folder)
    pack(folder, per_shard=2)
    expected = {name: _tree(folder / name) for name in ("ms", "ts", "shards")}
    for name in expected:
        (folder / name).rename(folder / f"old_{name}")
    masks = ImportOptions(folder=folder / "masks")
    for index in (2, 1):  # each goes through masks and tiles without waiting for the other
        part = Part(index, 2)
        write_mask_store(folder / "photos", masks, folder / "ms", per_file=4, part=part)
        write_tile_store(folder / "ms", folder / "ts", part=part)
    for index in (2, 3, 1):
        report = pack(folder, per_shard=2, part=Part(index, 3))
        report.finish()
        assert (folder / "shards" / "manifest.json").exists() == (index == 1)
        assert (folder / f"shards-report-{index}-of-3.json").exists()
    assert "shards are still to come from other parts" in capsys.readouterr().out
    assert {name: _tree(folder / name) for name in expected} == expected


def test_parts_made_in_different_ways_are_not_packed_together(folder: Path) -> None:
    masks = ImportOptions(folder=folder / "masks")
    for index, size in ((1, 64), (2, 128)):
        part = Part(index, 2)
        write_mask_store(folder / "photos", masks, folder / "ms", per_file=4, size=size, part=part)
    write_tile_store(folder / "ms", folder / "ts")
    with pytest.raises(
        UserError, match=r"00001-of-00003.h5: was made with mask_size=128, 64 in .*00000-of-00003"
    ):
        pack(folder)


def test_parts_that_saw_other_photos_are_not_packed_together(folder: Path) -> None:
    """A machine on which a photo was not to be seen for a moment."""
    masks = ImportOptions(folder=folder / "masks")
    write_mask_store(folder / "photos", masks, folder / "ms", per_file=6, part=Part(1, 2))
    hidden = (folder / "photos" / "b" / "cmyk.jpg").rename(folder / "hidden")
    write_mask_store(folder / "photos", masks, folder / "ms", per_file=6, part=Part(2, 2))
    hidden.rename(folder / "photos" / "b" / "cmyk.jpg")
    write_tile_store(folder / "ms", folder / "ts")
    with pytest.raises(UserError, match=r"00001-of-00002.h5: was made from another list of photos than"):
        pack(folder)


def test_leftovers_make_way(folder: Path) -> None:
    """Of a kill between the manifest and the clean-up, and of an older packing whose manifest was deleted."""
    stores(folder)
    pack(folder, per_shard=1)
    expected = len(list((folder / "shards").glob("*.tar")))
    (folder / "shards" / ".progress").mkdir()
    pack(folder, per_shard=1)
    assert not (folder / "shards" / ".progress").exists()
    (folder / "shards" / "manifest.json").unlink()
    pack(folder, per_shard=3)
    assert 0 < len(list((folder / "shards").glob("*.tar"))) < expected


@pytest.mark.parametrize("kind", ["geometry", "pixels"])
def test_damaged_tiles_stop_the_shard(folder: Path, kind: str) -> None:
    """Also in stores of before there were checksums."""
    stores(folder)
    if kind == "pixels":
        shutil.rmtree(folder / "ts")
        write_tile_store(folder / "ms", folder / "ts", photo_folder=folder / "photos")
    path = folder / "ts" / "00000-of-00003.h5"
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        start = file["geometry" if kind == "geometry" else "jpeg"].id.get_offset()
    data[start + 8 : start + 40] = b"\x7f" * 32
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"ts/00000-of-00003.h5: .*damaged.*delete that file"):
        pack(folder)
    with h5py.File(path, "r+") as file:  # which cuts the checksum off
        if kind == "pixels":
            del file["crc"]
    with pytest.raises(UserError, match=r"ts/00000-of-00003.h5: the tile of a/good.jpg is damaged"):
        pack(folder, "other")
    assert not list(folder.glob("*/manifest*"))


def test_lack_of_memory_is_not_a_bad_photo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(MemoryError):
        open_photo(folder / "photos" / "a" / "good.jpg")
    monkeypatch.setattr(Decoder, "_run", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(UserError, match="the training decoder does not work here .no memory."):
        Decoder().size(b"anything")


def test_shards_wait_for_all_masks(folder: Path) -> None:
    masks = ImportOptions(folder=folder / "masks")
    write_mask_store(folder / "photos", masks, folder / "ms", per_file=4, part=Part(1, 2))
    write_tile_store(folder / "ms", folder / "ts", part=Part(1, 2))
    with pytest.raises(UserError, match="00001-of-00003.h5 is missing"):
        pack(folder)


@pytest.mark.parametrize("tool", ["masks", "tiles", "shards"])
def test_a_full_disk_keeps_what_is_finished_and_says_what_is_needed(tmp_path: Path, tool: str) -> None:
    """On a small file system of its own; where none can be mounted, the test skips."""
    rng = np.random.default_rng(0)
    mask = np.zeros((100, 100), bool)
    mask[30:50, 30:50] = True
    for number in range(60):
        save(tmp_path, f"{number:02d}", rng.integers(0, 256, (100, 100, 3), dtype=np.uint8), mask)
    stores(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    photos, masks = tmp_path / "photos", ImportOptions(folder=tmp_path / "masks")
    write = {
        "masks": lambda out: write_mask_store(photos, masks, out, per_file=4),
        "tiles": lambda out: write_tile_store(tmp_path / "ms", out, photo_folder=photos),
        "shards": lambda out: write_shards(photos, tmp_path / "ms", tmp_path / "ts", out, per_shard=6),
    }[tool]
    try:
        with pytest.raises(
            UserError, match=r"No space left.*files are finished; the rest needs about .* [kM]B"
        ) as error:
            write(disk / "out")
        assert not list(disk.rglob("*.tmp"))
        finished = [path for path in disk.rglob("*.[ht]*") if path.is_file()]
        kept = {path: path.stat().st_mtime_ns for path in finished}
        assert len(kept) >= 1, error.value
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        write(disk / "out")
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
        write(tmp_path / "whole")
        assert _tree(disk / "out") == _tree(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
