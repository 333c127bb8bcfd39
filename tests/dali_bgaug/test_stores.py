from pathlib import Path

import numpy as np
import pytest

from dali_bgaug import stores
from dali_bgaug.errors import UserError


def _entries(count: int = 2) -> stores.Entries:
    return stores.Entries(
        keys=[f"a/{number}.jpg" for number in range(count)],
        box=np.array([[0, 0, 10, 20]] * count),
        size=np.array([[30, 40]] * count),
        flags=np.zeros(count, np.uint8),
        options={"threshold": 0.9},
        source="one",
    )


def test_masks_come_back(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    saliency = np.arange(2 * 64 * 64, dtype=np.uint8).reshape(2, 64, 64)
    stores.write_masks(path, saliency, _entries())
    assert [file.name for file in stores.list_files(tmp_path, "--masks")] == ["00000-of-00001.h5"]
    found = stores.read_entries(path)
    assert found.keys == ["a/0.jpg", "a/1.jpg"]
    assert found.box.tolist() == [[0, 0, 10, 20]] * 2
    assert found.options == {"threshold": 0.9}
    assert found.source == "one"
    reader = stores.StoreReader([path])
    assert np.array_equal(reader.saliency(0, 1), saliency[1])
    reader.close()


def test_tiles_come_back(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    stores.write_tiles(path, [b"first", b"", b"third one"], ["a", "b", "c"], np.zeros(3), {}, "source")
    reader = stores.StoreReader([path])
    assert [reader.tile(0, row) for row in range(3)] == [b"first", b"", b"third one"]
    reader.close()


def test_a_finished_file_is_known_by_its_source(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    assert not stores.is_finished(path, "one")
    stores.write_masks(path, np.zeros((2, 64, 64), np.uint8), _entries())
    assert stores.is_finished(path, "one")
    with pytest.raises(UserError, match=r"00000-of-00001.h5: made from other photos"):
        stores.is_finished(path, "two")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no store files"),
        (["00000-of-00002.h5"], "00001-of-00002.h5 is missing"),
        (["00000-of-00001.h5", "00000-of-00002.h5"], "two stores"),
    ],
)
def test_incomplete_stores_are_errors(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        stores.list_files(tmp_path, "--masks")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    path.write_bytes(b"not HDF5")
    with pytest.raises(UserError, match="00000-of-00001.h5: not a readable HDF5 file"):
        stores.read_entries(path)
