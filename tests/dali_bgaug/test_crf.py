"""The dense random field against pydensecrf2's results, and what must hold of any."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dali_bgaug.crf import lattice, refine

RECORDED = np.load(Path(__file__).parents[1] / "data" / "crf.npz")


@pytest.mark.parametrize("name", ["disc", "hard", "grey"])
def test_as_pydensecrf(name: str) -> None:
    """A soft disc at full size, a hard mask (p of 0 and 1) at 128 pixels, a faint bar in grey at 216."""
    image, before, side, expected = (RECORDED[f"{name}_{it}"] for it in ("image", "before", "side", "after"))
    found = refine(image, before, float(side))
    assert np.abs(found - expected).mean() < 1e-6
    assert np.abs(found - expected).max() < 1e-4
    assert np.array_equal(found >= 0.5, expected >= 0.5)
    assert np.abs(before - expected).mean() > 1e-3 or name == "hard"  # it did something


def test_the_lattice_is_near_the_exact_kernel() -> None:
    """Means of a part of a photo weighted by exp(-d^2 / 2), by the definition."""
    image, values = RECORDED["disc_image"][20:60, 40:90], RECORDED["disc_before"][20:60, 40:90].ravel()
    place = np.indices((40, 50)).reshape(2, -1) / 80
    points = np.concatenate([place, np.moveaxis(image / 13, -1, 0).reshape(3, -1)])
    kernel = np.exp(-cdist(points.T, points.T, "sqeuclidean") / 2)
    exact = kernel @ values / kernel.sum(1)
    filter_ = lattice(points)
    found = filter_(values) / filter_(np.ones(2000))
    assert np.abs(found - exact).mean() < 0.005


def test_the_two_labels_are_alike() -> None:
    image, before = RECORDED["disc_image"], RECORDED["disc_before"].astype(float)
    assert np.allclose(refine(image, before) + refine(image, 1 - before), 1, atol=1e-9)


def test_a_photo_of_one_colour_has_only_places() -> None:
    """Mean field by its definition, every pixel with every other, whatever the colour is."""
    unary = np.random.default_rng(0).normal(0, 3, (40, 60)) + np.linspace(-4, 4, 60)
    squares = cdist(*[np.indices((40, 60)).reshape(2, -1).T] * 2, "sqeuclidean")
    total = 0
    for sigma, weight in ((3 * 40 / 432, 3), (80 * 40 / 432, 10)):  # for a side of 40 pixels
        kernel = np.exp(-squares / (2 * sigma**2))
        norm = 1 / np.sqrt(kernel.sum(1))
        total = total + weight * norm[:, None] * kernel * norm
    logit = unary.ravel()
    for _ in range(5):
        logit = unary.ravel() + total @ np.tanh(logit / 2)
    expected, before = ((1 / (1 + np.exp(-each))).reshape(40, 60) for each in (logit, unary))
    assert np.abs(before - expected).mean() > 0.2
    for level in (0, 90):
        found = refine(np.full((40, 60, 3), level, np.uint8), before, 40.0)
        assert np.abs(found - expected).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 200)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_certainty_is_no_trouble(shape: tuple[int, int], level: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert refine(image, np.full(shape, level)) == pytest.approx(level, abs=1e-6)
