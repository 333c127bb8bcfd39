import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dali_bgaug
from dali_bgaug import shards
from dali_bgaug.errors import UserError
from dali_bgaug.files import sha256

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


def _change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    values["digest"] = ""  # as in sets packed before there was one
    path.write_text(json.dumps(values))


def _set(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("shards", to=[]), "shards: List should have at least 1 item"),
        (_set("samples", to=2**60), r"samples: 1152921504606846976, but its shards have \d+"),
        (_set("samples", to=1), r"samples: 1, but its shards have \d+"),
        (_set("shards", 1, "name", to="shard-00000.tar"), "shard-00000.tar listed twice"),
        (_set("shards", 0, "name", to="/etc/passwd"), "'/etc/passwd' is not the name of a file in"),
        (_set("shards", 0, "index", to="../shard-00000.idx"), "'../shard-00000.idx' is not the name of a"),
        (_set("shards", 0, "name", to=".."), "'..' is not the name of a file in"),
        (_set("shards", 0, "samples", to=-3), "shards.0.samples: Input should be greater than or equal to 0"),
        (_set("mask_size", to=64), r"entry 1: b'mask \d+ \d+ .*' is no mask of 512 bytes"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(
    packed: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    _change_manifest(packed, change)
    with pytest.raises(UserError, match=message):
        shards.open_shards(packed)


def test_a_manifest_of_before_a_field_was_there_is_read(packed: Path) -> None:
    """Its digest is of what it has."""
    path = packed / "manifest.json"
    values = json.loads(path.read_text())
    assert values["package_version"] == dali_bgaug.__version__
    del values["suspicious"], values["package_version"], values["digest"]
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    values["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(values))
    read = shards.read_manifest(packed)
    assert (read.suspicious, read.package_version) == ([], "")
    values["donors"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="digest: not that of its content"):
        shards.read_manifest(packed)


def test_any_change_of_a_manifest_is_noticed(packed: Path) -> None:
    """Also of what nothing else could tell: options, classes, the source."""
    path = packed / "manifest.json"
    text = path.read_text()
    for old, new in (('"classes"', '"Classes"'), ('"seed"', '"sead"'), ('"source": "', '"source": "0')):
        if old in text:
            path.write_text(text.replace(old, new, 1))
            with pytest.raises(UserError, match="not a manifest of this version"):
                shards.open_shards(packed)
    path.write_text(text)
    shards.open_shards(packed)


def test_a_shard_from_elsewhere_is_refused(packed: Path, tmp_path: Path) -> None:
    tar = packed / "shard-00000.tar"
    tar.symlink_to(tar.rename(tmp_path / "other.tar"))
    with pytest.raises(UserError, match=r"shard-00000.tar: a link to .*other.tar, out of the folder"):
        shards.open_shards(packed)


def _first_entry(number: int, value: str) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        words = lines[1].split(" ")
        words[number] = value
        lines[1] = " ".join(words)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.__setitem__(0, "v1.1 16"), "begins with b'v1.1 16', not with 'v1.2 16'"),
        (lambda lines: lines.__setitem__(0, "v1.2 17"), "begins with b'v1.2 17', not with 'v1.2 16'"),
        (lambda lines: lines.pop(3), "has 15 entries, manifest.json says 16"),
        (_first_entry(2, str(10**9)), "entry 1: b'jpg 512 1000000000 .*' is no jpg in a tar of"),
        (_first_entry(5, str(10**9)), "entry 1: b'mask 1000000000 .*' is no mask of 8192 bytes"),
        (_first_entry(1, "-512"), "entry 1: b'jpg -512 .*' is no jpg in a tar of"),
        (_first_entry(2, str(2**63 - 1)), "entry 1: b'jpg 512 9223372036854775807 .*' is no jpg in a tar of"),
        (_first_entry(2, str(2**70)), "entry 1: b'jpg 512 1180591620717411303424 .*' is no jpg in"),
        (_first_entry(1, "5x2"), "an offset or a size is no number"),
        (_first_entry(0, "png"), "entry 1: b'png 512 .*' is no jpg"),
        (lambda lines: lines.__setitem__(2, lines[2] + " x"), "entry 2: 17 words, not 16"),
        (lambda lines: lines.__setitem__(slice(None), ["\x1f garbage"]), "begins with"),
    ],
)
def test_an_index_that_is_not_of_its_tar_is_refused(
    packed: Path, change: Callable[[list[str]], None], message: str
) -> None:
    """Its checksum is right: it was so when the set was packed, or both were changed."""
    index = packed / "shard-00000.idx"
    lines = index.read_text().splitlines()
    change(lines)
    index.write_text("\n".join([*lines, ""]))
    _change_manifest(packed, _set("shards", 0, "index_sha256", to=sha256(index)))
    with pytest.raises(UserError, match=message):
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
