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
        bytes=np.array([1000] * count),
        left_out=[("a/bad.jpg", "empty file", "")],
        listing="all",
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
    assert found.bytes.tolist() == [1000, 1000]
    assert found.left_out == [("a/bad.jpg", "empty file", "")]
    assert stores.read_source(path) == ("one", {"threshold": 0.9}, "all", "")
    assert stores.count_rows(path) == 2
    reader = stores.StoreReader([path])
    assert np.array_equal(reader.saliency(0, 1), saliency[1])
    reader.close()


def test_tiles_come_back(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    stores.write_tiles(path, [b"first", b"", b"third one"], ["a", "b", "c"], np.zeros(3), {}, "source")
    reader = stores.StoreReader([path])
    assert [reader.tile(0, row) for row in range(3)] == [b"first", b"", b"third one"]
    assert stores.tile_bytes(path).tolist() == [5, 0, 9]
    assert stores.tile_kind(path) == "pixels"
    reader.close()


def test_geometry_comes_back(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    stores.write_tiles(path, np.arange(24).reshape(3, 8), ["a", "b", "c"], np.zeros(3), {}, "source")
    with stores.StoreReader([path]) as reader:
        assert reader.geometry(0, 1).tolist() == list(range(8, 16))
    assert stores.tile_bytes(path).tolist() == [32, 32, 32]
    assert stores.tile_kind(path) == "geometry"


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
    with pytest.raises(UserError, match="00000-of-00001.h5: damaged, cut short, or not a file of this"):
        stores.read_entries(path)


def test_files_of_one_part_are_enough_where_only_they_are_needed(tmp_path: Path) -> None:
    for number in (1, 3):
        (tmp_path / stores.file_name(number, 4)).touch()
    assert len(stores.list_files(tmp_path, "--masks", slice(1, None, 2))) == 4
    with pytest.raises(UserError, match="00000-of-00004.h5 is missing"):
        stores.list_files(tmp_path, "--masks", slice(0, None, 2))


def test_a_file_cut_short_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    stores.write_tiles(path, [b"x" * 4000], ["a"], np.zeros(1), {}, "source")
    reader = stores.StoreReader([path])
    assert reader.tile(0, 0) == b"x" * 4000
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"00000-of-00001.h5: cut short"):
        reader.tile(0, 0)
    reader.close()


def test_a_file_in_which_no_photo_lends_a_background_has_only_empty_tiles(tmp_path: Path) -> None:
    path = tmp_path / stores.file_name(0, 1)
    stores.write_tiles(path, [b"", b""], ["a", "b"], np.zeros(2), {}, "source")
    with stores.StoreReader([path]) as reader:
        assert [reader.tile(0, row) for row in (0, 1)] == [b"", b""]


def test_a_store_of_more_files_than_a_process_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "OPEN_FILES", 3)
    paths = [tmp_path / f"{number}.h5" for number in range(5)]
    for number, path in enumerate(paths):
        stores.write_tiles(path, [bytes([number])], ["k"], np.zeros(1), {}, "s")
    reader = stores.StoreReader(paths)
    for _ in range(2):
        assert [reader.tile(number, 0) for number in range(5)] == [b"\0", b"\1", b"\2", b"\3", b"\4"]
    assert len(reader._open) == 3
    reader.close()
