from pathlib import Path

import h5py
import numpy as np
import pytest

from dali_bgaug import hdf5, storage, stores
from dali_bgaug.errors import UserError

MASKS = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)
KEYS = [f"{number}.jpg" for number in range(5)]
JPEGS = [b"", b"first", b"second one" * 40, b"3", b"last"]


def _masks(path: Path) -> None:
    entries = stores.Entries(
        keys=KEYS,
        box=np.arange(20).reshape(5, 4),
        size=np.full((5, 2), 40),
        flags=np.zeros(5, np.uint8),
        bytes=np.full(5, 1000),
        left_out=[],
        listing="all",
        options={"threshold": 0.9},
        source="one",
    )
    stores.write_masks(path, MASKS, entries)


def _read_masks(path: Path) -> list[object]:
    entries = stores.read_entries(path)
    with stores.StoreReader([path]) as reader:
        maps = [reader.saliency(0, row).tolist() for row in range(5)]
    return [maps, entries.keys, entries.box.tolist(), entries.size.tolist(), stores.read_source(path)]


def _tiles(path: Path) -> None:
    stores.write_tiles(path, JPEGS, KEYS, np.zeros(5), {"rule": "t"}, "source")


def _read_tiles(path: Path) -> list[object]:
    with stores.StoreReader([path]) as reader:
        tiles = [reader.tile(0, row) for row in range(5)]
    return [tiles, stores.read_keys(path), stores.tile_bytes(path).tolist(), stores.read_source(path)]


def _geometry(path: Path) -> None:
    stores.write_tiles(path, np.arange(40).reshape(5, 8), KEYS, np.zeros(5), {"rule": "t"}, "source")


def _read_geometry(path: Path) -> list[object]:
    with stores.StoreReader([path]) as reader:
        tiles = [reader.geometry(0, row).tolist() for row in range(5)]
    return [tiles, stores.read_keys(path), stores.read_source(path)]


def _damage(data: bytes, rng: np.random.Generator) -> bytes:
    """A bit turned over, zeros or random bytes somewhere, or the end cut off."""
    begin, kind = int(rng.integers(len(data))), rng.integers(4)
    if kind == 0:
        return data[:begin]
    if kind == 1:
        return data[:begin] + bytes([data[begin] ^ 1 << rng.integers(8)]) + data[begin + 1 :]
    length = min(int(rng.integers(1, 600)), len(data) - begin)
    piece = bytes(length) if kind == 2 else rng.bytes(length)
    return data[:begin] + piece + data[begin + length :]


@pytest.mark.parametrize(
    ("write", "read"), [(_masks, _read_masks), (_tiles, _read_tiles), (_geometry, _read_geometry)]
)
def test_no_damage_is_read_as_data(write, read, tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    write(path)
    whole, right, refused = path.read_bytes(), read(path), 0
    rng = np.random.default_rng(1)
    for _ in range(300):
        path.write_bytes(damaged := _damage(whole, rng))
        if damaged == whole:
            continue
        with pytest.raises(UserError, match=r"00000-of-00001.h5: .*delete"):
            read(path)
        refused += 1
    assert refused > 200
    path.write_bytes(whole)
    assert read(path) == right


def test_a_damaged_row_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    _masks(path)
    data = bytearray(path.read_bytes())
    data[data.index(MASKS[2].tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with stores.StoreReader([path]) as reader:
        assert np.array_equal(reader.saliency(0, 1), MASKS[1])
        with pytest.raises(UserError, match="00000-of-00001.h5: row 2 is damaged, its checksum is wrong"):
            reader.saliency(0, 2)


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    with h5py.File(path, "w") as file:
        file["jpeg"], file["offset"] = np.frombuffer(b"firstsecond", np.uint8), [0, 5, 11]
        file.create_dataset("key", data=["a", "b"], dtype=h5py.string_dtype())
        file["flags"] = np.zeros(2, np.uint8)
        file.attrs.update(options="{}", version=2, source="one")
    assert not hdf5.has_checksums(path)
    assert stores.is_finished(path, "one")
    with stores.StoreReader([path]) as reader:
        assert [reader.tile(0, row) for row in range(2)] == [b"first", b"second"]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.h5: not a readable HDF5 file"):
        hdf5.open_checked(tmp_path / "gone.h5")


@pytest.mark.parametrize(
    ("write", "row"), [(_masks, stores.StoreReader.saliency), (_tiles, stores.StoreReader.tile)]
)
def test_an_outline_is_the_file_but_its_rows(write, row, tmp_path: Path) -> None:
    write(tmp_path / "whole.h5")
    storage.upload(tmp_path / "whole.h5", "memory://outlines/outline.h5")
    outline = tmp_path / "outline.h5"
    found = storage.stat("memory://outlines/outline.h5")
    assert not hdf5.download_outline("memory://outlines/outline.h5", outline, found)
    whole, copy = (np.fromfile(path, np.uint8) for path in (tmp_path / "whole.h5", outline))
    assert len(whole) == len(copy)
    differ = np.flatnonzero(whole != copy)
    lost = MASKS.nbytes if write is _masks else sum(map(len, JPEGS))
    assert 0 < len(differ) <= lost
    assert differ[-1] - differ[0] < lost
    assert stores.read_keys(outline) == KEYS
    assert stores.is_finished(outline, stores.read_source(tmp_path / "whole.h5").source)
    with stores.StoreReader([outline]) as reader, pytest.raises(UserError, match="row 4 is damaged"):
        row(reader, 0, 4)


def test_a_file_without_rows_is_its_own_outline(tmp_path: Path) -> None:
    _geometry(tmp_path / "whole.h5")
    (tmp_path / "other.h5").write_bytes(b"no store")
    for name in ("whole.h5", "other.h5"):
        storage.upload(tmp_path / name, f"memory://outlines/{name}")
        found = storage.stat(f"memory://outlines/{name}")
        assert hdf5.download_outline(f"memory://outlines/{name}", tmp_path / "copy", found)
        assert (tmp_path / "copy").read_bytes() == (tmp_path / name).read_bytes()
