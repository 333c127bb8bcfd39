"""The moving average of refined predictions."""

from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.crf import refine
from train.saliency.average import MovingAverage


def test_by_its_definition(tmp_path: Path) -> None:
    """Of two epochs: (.7 * .3 r1 + .3 r2) / (1 - .49), r the refined predictions."""
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    photos[:, 8:16, 8:16] = 255
    np.save(tmp_path / "photos.npy", photos)
    predictions = rng.uniform(0.2, 0.8, (2, 2, 24, 24)).astype(np.float32)
    refined = [
        [refine(photo, one) for photo, one in zip(photos, epoch, strict=True)] for epoch in predictions
    ]
    with MovingAverage(tmp_path / "photos.npy", tmp_path, 0.7, workers=2) as average:
        checksums = []
        for epoch, (first, second) in enumerate(predictions):
            average.create(epoch)
            average.begin(epoch)
            average.add([0], first[None])
            average.add([1], second[None])
            average.finish()
            checksums.append(average.checksum(epoch))
        assert checksums[0] != checksums[1]
        assert average.checksum(0) == checksums[0]  # an epoch that is broken off would leave it, too
        for epochs, row, expected in (
            (1, 0, refined[0][0]),
            (2, 0, (0.21 * refined[0][0] + 0.3 * refined[1][0]) / 0.51),
            (2, 1, (0.21 * refined[0][1] + 0.3 * refined[1][1]) / 0.51),
        ):
            assert np.abs(average.mean(epochs)[row] / 255 - expected).max() < 0.004


def test_a_failure_is_not_lost(tmp_path: Path) -> None:
    np.save(tmp_path / "photos.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with MovingAverage(tmp_path / "photos.npy", tmp_path, 0.7, workers=1) as average:
        average.create(0)
        average.begin(0)
        average.add([5], np.full((1, 8, 8), 0.5))
        with pytest.raises(IndexError):
            average.finish()
