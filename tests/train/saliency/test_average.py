"""The moving average of refined predictions."""

import os
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.crf import refine
from dali_bgaug.errors import UserError
from train.saliency.average import MovingAverage, checksum
from train.saliency.workers import worker_pool


def test_by_its_definition(tmp_path: Path) -> None:
    """Of two epochs: (.7 * .3 r1 + .3 r2) / (1 - .49), r the refined predictions; then another stage."""
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    photos[:, 8:16, 8:16] = 255
    np.save(tmp_path / "photos.npy", photos)
    predictions = rng.uniform(0.2, 0.8, (3, 2, 24, 24)).astype(np.float32)
    refined = [
        [refine(photo, one) for photo, one in zip(photos, epoch, strict=True)] for epoch in predictions
    ]
    checksums = []
    with worker_pool(2, "refines") as pool:
        average = MovingAverage(tmp_path / "photos.npy", tmp_path / "averages", 0.7, pool, ahead=1)
        for turn, (first, second) in enumerate(predictions):
            average.create(turn)
            average.begin(turn, first=turn in (0, 2))
            average.add([0], first[None])
            average.add([1], second[None])
            average.finish()
            checksums.append(checksum(tmp_path / "averages", turn))
            if turn:  # what an epoch that is broken off starts from again
                assert checksum(tmp_path / "averages", turn - 1) == checksums[-2]
            average.write_mean(turn, 1 + turn % 2, tmp_path / f"{turn}.npy")
    assert len(set(checksums)) == 3
    for turn, row, expected in (
        (0, 0, refined[0][0]),
        (1, 0, (0.21 * refined[0][0] + 0.3 * refined[1][0]) / 0.51),
        (1, 1, (0.21 * refined[0][1] + 0.3 * refined[1][1]) / 0.51),
        (2, 1, refined[2][1]),
    ):
        found = np.load(tmp_path / f"{turn}.npy")
        assert found.dtype == np.uint8
        assert np.abs(found[row] / 255 - expected).max() < 0.004
    assert checksum(tmp_path / "none", 0) == 0


def test_a_failure_is_not_lost(tmp_path: Path) -> None:
    np.save(tmp_path / "photos.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with worker_pool(1, "refines") as pool:
        average = MovingAverage(tmp_path / "photos.npy", tmp_path, 0.7, pool, ahead=4)
        average.create(0)
        average.begin(0, first=True)
        average.add([5], np.full((1, 8, 8), 0.5))
        with pytest.raises(IndexError):
            average.finish()


def test_a_killed_worker_is_told() -> None:
    """As the kernel kills one where memory is full."""
    told = "a process that counts was killed .* workers than 1"
    with pytest.raises(UserError, match=told), worker_pool(1, "counts") as pool:
        pool.submit(os._exit, 9).result()
