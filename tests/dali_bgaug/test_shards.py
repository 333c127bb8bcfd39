import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug import shards
from dali_bgaug.errors import UserError

V1 = Path(__file__).parents[1] / "data" / "shards_v1"


def _samples(count: int = 5, prefix: str = "class/") -> list[shards.Sample]:
    rng = np.random.default_rng(0)
    return [
        shards.Sample(
            key=f"{prefix}photo{number}",
            photo=rng.bytes(700 * number + 1),
            mask=rng.random((64, 64)) < 0.5,
            tile=None if number == 2 else rng.bytes(512),
            label=number,
        )
        for number in range(count)
    ]


def test_member_key_has_no_dots_or_blanks() -> None:
    assert shards.member_key("n01/a b.c.JPEG") == "n01/a_b_c"
    assert shards.member_key("x.jpg") == "x"
    assert shards.member_key("my class/x.y/photo (1).jpeg") == "my_class/x.y/photo_(1)"


def test_mask_bits_start_top_left() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[1, 7] = True
    assert shards.pack_mask(mask) == bytes([0x80, 0x01, 0, 0, 0, 0, 0, 0])
    assert np.array_equal(shards.unpack_mask(shards.pack_mask(mask), 8), mask)


def test_index_is_what_dalis_own_tool_writes(tmp_path: Path) -> None:
    shards.write_shard(tmp_path, "s", _samples(), "pixels")
    reference = tmp_path / "reference.idx"
    subprocess.run(
        [sys.executable, "-m", "wds2idx", str(tmp_path / "s.tar"), str(reference)],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "s.idx").read_text() == reference.read_text()


@pytest.mark.parametrize("prefix", ["class/", "x" * 80 + "/" + "y" * 80 + "/"])
def test_samples_come_back(tmp_path: Path, prefix: str) -> None:
    """Also with names too long for a plain tar header."""
    samples = _samples(prefix=prefix)
    shard = shards.write_shard(tmp_path, "s", samples, "pixels")
    assert shard.samples == 5
    for found, expected in zip(shards.read_samples(tmp_path, shard), samples, strict=True):
        assert np.array_equal(found.mask, expected.mask)
        assert found._replace(mask=None) == expected._replace(mask=None)
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert tar.extractfile(f"{prefix}photo3.cls").read() == b"000003"


def test_geometry_is_eight_little_endian_numbers(tmp_path: Path) -> None:
    geometry = np.array([3, 1, 40, 300, 0, 301, 50, 20], np.int32)
    samples = [sample._replace(tile=geometry if sample.label else None) for sample in _samples(2)]
    shard = shards.write_shard(tmp_path, "s", samples)
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert tar.getnames() == [
            f"class/photo{number}.{extension}"
            for number in (0, 1)
            for extension in ("jpg", "mask", "tile", "cls")
        ]
        assert tar.extractfile("class/photo0.tile").read() == bytes(32)
        packed = tar.extractfile("class/photo1.tile").read()
    assert packed[:4] + packed[12:16] == b"\x03\0\0\0" + b"\x2c\x01\0\0"
    none, found = (sample.tile for sample in shards.read_samples(tmp_path, shard))
    assert none is None
    assert found.tolist() == geometry.tolist()


def test_shards_of_the_version_before() -> None:
    """Six photos packed before a manifest said what tiles are."""
    manifest = shards.open_shards(V1)
    assert (manifest.tiles, manifest.samples) == ("pixels", 6)
    tiles = [sample.tile for sample in shards.read_samples(V1, manifest.shards[0])]
    assert sum(tile is not None for tile in tiles) == manifest.donors == 6
    assert all(tile.startswith(b"\xff\xd8") for tile in tiles)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first = shards.write_shard(tmp_path, "a", _samples(), "pixels")
    second = shards.write_shard(tmp_path, "b", _samples(), "pixels")
    assert first.sha256 == second.sha256
    assert first.index_sha256 == second.index_sha256


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken():
        yield from _samples()
        raise UserError("photo 5 is damaged")

    with pytest.raises(UserError):
        shards.write_shard(tmp_path, "s", broken(), "pixels")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def packed(flat: Path, tmp_path: Path) -> Path:
    return shutil.copytree(flat, tmp_path / "shards")


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_changes_after_packing_are_noticed(packed: Path) -> None:
    tar, index = packed / "shard-00001.tar", packed / "shard-00001.idx"
    original = tar.read_bytes()

    tar.write_bytes(original[:-512])
    with pytest.raises(UserError, match=r"shard-00001.tar: \d+ bytes, but manifest.json says"):
        shards.open_shards(packed)

    tar.write_bytes(original)
    _flip_a_byte(tar)
    with pytest.raises(UserError, match=r"shard-00001.tar: its checksum"):
        shards.open_shards(packed)
    shards.open_shards(packed, verify=False)

    tar.write_bytes(original)
    shards.open_shards(packed)
    _flip_a_byte(index)
    with pytest.raises(UserError, match=r"shard-00001.idx: its checksum"):
        shards.open_shards(packed, verify=False)

    index.unlink()
    with pytest.raises(UserError, match=r"shard-00001.idx: missing"):
        shards.open_shards(packed)


def test_folders_without_a_data_set(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: does not exist"):
        shards.open_shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no manifest.json"):
        shards.open_shards(tmp_path)
    (packed / "manifest.json").write_text('{"version": 1}')
    with pytest.raises(UserError, match="not a manifest of this version"):
        shards.open_shards(packed)


@pytest.mark.parametrize(
    "name", ["a", "n01440764/n01440764_10026.jpg", "x" * 99, "x" * 100, "y/" * 80 + "z", "café/é.cls"]
)
@pytest.mark.parametrize("size", [0, 7, 8192, 110_000, 8**11 - 1, 8**11 + 3])
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    assert shards._header(name, size) == info.tobuf(tarfile.GNU_FORMAT)
