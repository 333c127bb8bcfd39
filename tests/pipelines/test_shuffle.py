"""How well the loader shuffles, on shards that were packed *sorted*, which the tools never do."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.shards import Manifest, Sample, write_manifest, write_shard
from pipelines import LoaderConfig, build_loader

SAMPLES, PER_SHARD, CLASSES = 3200, 50, 16


@pytest.fixture(scope="module")
def sorted_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3200 samples in order, 50 a shard; the label is a sample's place."""
    folder = tmp_path_factory.mktemp("sorted")
    Image.new("RGB", (16, 16)).save(buffer := io.BytesIO(), "JPEG")
    mask = np.zeros((64, 64), bool)
    shards = [
        write_shard(
            folder,
            f"shard-{first // PER_SHARD:05d}",
            [
                Sample(f"{place:05d}", buffer.getvalue(), mask, None, place)
                for place in range(first, first + PER_SHARD)
            ],
        )
        for first in range(0, SAMPLES, PER_SHARD)
    ]
    manifest = Manifest(
        samples=SAMPLES,
        donors=0,
        classes=[str(label) for label in range(SAMPLES)],
        mask_size=64,
        tiles="geometry",
        options={},
        source="",
        shards=shards,
    )
    write_manifest(folder, manifest)
    return folder


def _epochs(
    folder: Path, buffer: int, count: int, seed: int = 0, rank: int = 0, ranks: int = 1
) -> np.ndarray:
    config = LoaderConfig(
        pipeline="supervised", shards=folder, batch_size=64 * ranks, device="cpu", threads=2, seed=seed,
        crop={"size": 8}, shuffle_buffer=buffer,
    )  # fmt: skip
    with build_loader(config, rank, ranks) as loader:
        return np.array([np.concatenate([batch["label"] for batch in loader]) for _ in range(count)])


def _displacement(order: np.ndarray, before: np.ndarray) -> float:
    """Mean distance a sample moved, over that of a perfect shuffle (a third of the set)."""
    place = np.empty(SAMPLES)
    place[before] = np.arange(SAMPLES)
    return float(np.abs(place[order] - np.arange(len(order))).mean() / (SAMPLES / 3))


def _same_class(order: np.ndarray) -> float:
    """Share of neighbours of one class, of 16 classes in sorted order; 1 in 16 after a perfect shuffle."""
    classes = order // (SAMPLES // CLASSES)
    return float((classes[1:] == classes[:-1]).mean())


def test_shuffle_quality(sorted_shards: Path) -> None:
    """A buffer of the whole set is a perfect shuffle. One of a tenth of it moves samples as far, since shards
    come in another order, but half a shard's neighbours stay near: twice as many are of one class."""
    perfect = _epochs(sorted_shards, SAMPLES, 2)
    for order in perfect:
        assert sorted(order) == list(range(SAMPLES))
        assert 0.97 < _displacement(order, np.arange(SAMPLES)) < 1.03
        assert abs(_same_class(order) - 1 / CLASSES) < 0.015
    small = _epochs(sorted_shards, SAMPLES // 10, 3)
    for order in small:
        assert 0.8 < _displacement(order, np.arange(SAMPLES)) < 1.25
        assert 1.5 / CLASSES < _same_class(order) < 2.5 / CLASSES


def test_epochs_and_seeds_differ_and_ranks_are_disjoint(sorted_shards: Path) -> None:
    first, second = _epochs(sorted_shards, 640, 2)
    assert _displacement(second, first) > 0.8
    again = _epochs(sorted_shards, 640, 2)
    assert np.array_equal(again, [first, second])
    other = _epochs(sorted_shards, 640, 2, seed=1)
    assert not np.array_equal(other[0], first)
    parts = [_epochs(sorted_shards, 640, 2, rank=rank, ranks=2) for rank in range(2)]
    for epoch in range(2):
        assert not set(parts[0][epoch]) & set(parts[1][epoch])
    assert set(parts[0][0]) != set(parts[0][1])  # another half each epoch
