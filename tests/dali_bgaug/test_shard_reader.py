"""Samples of packed shards, read by shard and row."""

import os
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug import shard_reader
from dali_bgaug.errors import UserError
from dali_bgaug.samples import Memory
from dali_bgaug.sampling import Piece
from dali_bgaug.shard_files import LocalFiles
from dali_bgaug.shard_reader import ShardReader
from dali_bgaug.shards import extensions, open_shards, pack_mask, read_samples


def _reader(folder: Path, components: list[str]) -> ShardReader:
    manifest = open_shards(folder)
    return ShardReader(LocalFiles(folder, manifest), manifest, components)


@pytest.mark.parametrize("tiles", ["geometry", "pixels"])
@pytest.mark.parametrize("everything", [True, False])
def test_samples_are_those_that_were_packed(
    textured: Path, textured_pixels: Path, tiles: str, everything: bool
) -> None:
    """In any order, twice too, and from memory that was used before."""
    folder = {"geometry": textured, "pixels": textured_pixels}[tiles]
    manifest = open_shards(folder)
    packed = {
        (number, row): sample
        for number, shard in enumerate(manifest.shards)
        for row, sample in enumerate(read_samples(folder, shard))
    }
    reader, memory = _reader(folder, list(extensions(tiles)) if everything else ["jpg", "cls"]), Memory()
    generator = np.random.default_rng(0)
    for count in (7, 1, 20):
        rows = np.array(list(packed))[generator.integers(0, len(packed), count)]
        found = reader.read(rows, memory)
        expected = [packed[int(shard), int(row)] for shard, row in rows]
        assert [photo.tobytes() for photo in found.photos] == [sample.photo for sample in expected]
        assert found.labels.tolist() == [sample.label for sample in expected]
        if not everything:
            assert found.masks is None and found.tiles is None and found.tile_photos is None
            assert not found.lends.any()
            continue
        assert [mask.tobytes() for mask in found.masks] == [pack_mask(sample.mask) for sample in expected]
        assert found.lends.tolist() == [sample.tile is not None for sample in expected]
        if tiles == "pixels":
            assert [tile.tobytes() for tile in found.tile_photos] == [
                sample.tile or b"" for sample in expected
            ]
        else:
            none = np.zeros(8, np.int32)
            same = [none if sample.tile is None else sample.tile for sample in expected]
            assert np.array_equal(found.tiles, same)
    reader.close()


def test_few_tars_are_open_at_a_time(textured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "_OPEN_FILES", 2)
    reader, before = _reader(textured, ["jpg", "cls"]), len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        reader.read(np.array([[shard, 0] for shard in range(4)]), Memory())
        assert len(os.listdir("/proc/self/fd")) == before + 2
    reader.ahead(Piece(3, 0, 2))
    reader.release(3)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tar_cut_short_in_mid_run_is_named(textured: Path, tmp_path: Path) -> None:
    for path in textured.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    reader = _reader(tmp_path, ["jpg", "cls"])
    tar = tmp_path / "shard-00001.tar"
    os.truncate(tar, 5000)
    with pytest.raises(UserError, match=f"{tar}: ends before byte"):
        reader.read(np.array([[1, 5]]), Memory())
    reader.close()
