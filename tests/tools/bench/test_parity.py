"""The loader's views against the torchvision yardstick: bounds of what `tools.parity` reports."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.shards import Sample, open_shards, read_samples
from pipelines import LoaderConfig
from tools.bench import parity, parity_steps

BOUNDS = {
    # step: mean and 99.9th percentile of the absolute difference, in grey levels of 255
    "decode": (0.01, 0.5),
    "crop": (0.5, 6),
    "brightness": (0.01, 1),
    "contrast": (0.1, 1.5),
    "saturation": (0.05, 1),
    "hue": (1.5, 12),  # PIL keeps hue and saturation in bytes
    "jitter but for hue": (0.2, 2.5),
    "jitter": (1.8, 14),
    "jitter and grayscale": (0.2, 2.5),
    "blur": (0.8, 12),  # PIL's Gaussian is made of boxes, and borders are extended differently
    "blur, against a window of 23": (0.01, 0.1),
    "solarize": (0.01, 0.5),
    "mask": (0.8, 255),  # nearest neighbour: the pixels an edge only grazes
    "composite": (0.3, 0.6),  # PIL rounds the grey level
    "tile": (0.5, 6),
    "tile, against a JPEG of 256 pixels": (2.5, 70),
    "view": (1.3, 20),
}


def samples_of(shards: Path, count: int = 32) -> list[Sample]:
    """Samples that may lend their tile."""
    found = [sample for shard in open_shards(shards).shards for sample in read_samples(shards, shard)]
    return [sample for sample in found if sample.tile is not None][:count]


def check_pixels(found: dict[str, dict[str, float]], bounds: dict[str, tuple[float, float]]) -> None:
    assert found.keys() == bounds.keys()
    for step, (mean, high) in bounds.items():
        assert found[step]["mean"] <= mean, (step, found[step])
        assert found[step]["p99.9"] <= high, (step, found[step])


def test_every_step_is_the_yardsticks(textured: Path) -> None:
    check_pixels(parity_steps.compare_pixels(samples_of(textured)), BOUNDS)


def test_another_parameter_would_be_noticed(textured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: a tenth more contrast is out of bounds."""
    right = parity_steps.Parameters.put_look

    def put_more(self: parity_steps.Parameters, jobs: np.ndarray, **more: bool) -> np.ndarray:
        return right(replace(self, contrast=1.1 * self.contrast), jobs, **more)

    monkeypatch.setattr(parity_steps.Parameters, "put_look", put_more)
    found = parity_steps.compare_pixels(samples_of(textured, 8))
    assert found["contrast"]["mean"] > BOUNDS["contrast"][0]
    assert found["brightness"]["mean"] > BOUNDS["brightness"][0]


@pytest.mark.parametrize(("method", "kind"), parity.FULLEST.items())
def test_views_are_distributed_like_the_yardsticks(textured: Path, method: str, kind: str) -> None:
    """1000 photos of every method: channel means and deviations, histograms, replaced backgrounds."""
    small = {"size": 32}
    views = {"global": {"crop": small}, "local": {"crop": {"size": 16}, "count": 2}}
    config = LoaderConfig(
        pipeline=method,
        shards=textured,
        batch_size=50,
        device="cpu",
        threads=2,
        crop={"fg_min": 0.1, **({} if method == "swav" else small)},
        views=views if method == "swav" else {},
        background={"kind": kind, "p_pos": 0.3},
    )
    for name, row in parity.compare_distributions(config, 1000).items():
        # SwAV's jitter is twice as strong: its means spread twice as far.
        assert row["mean"] < (11 if method == "swav" else 6), (name, row)
        assert row["std"] < 6, (name, row)
        assert row["histogram"] < 0.06, (name, row)
        if "replaced" in row:
            expected = 0.0 if name.startswith("local") else 0.3
            bound = 4 * (0.3 * 0.7 / 1000) ** 0.5 if expected else 1e-9
            for key in ("replaced", "replaced_torchvision"):
                assert abs(row[key] - expected) < bound, (name, row)
