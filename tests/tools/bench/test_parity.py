"""The loader's views against the torchvision reference: bounds of what `tools.parity` reports."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import LoaderConfig
from tests.helpers.parity import BOUNDS, check_pixels
from tests.helpers.shards import samples_of
from tools.bench import parity, parity_steps


def test_every_step_is_the_references(textured: Path) -> None:
    check_pixels(parity_steps.compare_pixels(samples_of(textured)), BOUNDS)


def test_another_parameter_would_be_noticed(textured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: a tenth more contrast is out of bounds."""
    right = parity_steps.Parameters.put_photometric

    def put_more(self: parity_steps.Parameters, jobs: np.ndarray, **more: bool) -> np.ndarray:
        return right(replace(self, contrast=1.1 * self.contrast), jobs, **more)

    monkeypatch.setattr(parity_steps.Parameters, "put_photometric", put_more)
    found = parity_steps.compare_pixels(samples_of(textured, 8))
    assert found["contrast"]["mean"] > BOUNDS["contrast"][0]
    assert found["brightness"]["mean"] > BOUNDS["brightness"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind"), parity.FULLEST.items())
def test_views_are_distributed_like_the_references(textured: Path, method: str, kind: str) -> None:
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
