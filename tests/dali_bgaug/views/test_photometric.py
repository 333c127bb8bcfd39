"""Photometric steps held against PIL's and DeepMind's, on an image of many colours."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from dali_bgaug.views import photometric, table
from dali_bgaug.views.options import PhotometricOptions
from tests.helpers.rendering import render

DATA = Path(__file__).parents[2] / "data"
PIL_CASES = {
    "pil_brightness_1.3": [1.3, 1, 1, 0],
    "pil_contrast_1.4": [1, 1.4, 1, 0],
    "pil_saturation_1.2": [1, 1, 1.2, 0],
}


def _reference(name: str) -> np.ndarray:
    with np.load(DATA / "aug_ops.npz") as reference:
        return reference[name]


def _looked(**values: Any) -> np.ndarray:
    """The reference image after these steps, float32 [48, 48, 3]."""
    image = _reference("img_u8")
    jobs = table.new_jobs(1)
    jobs["size"] = len(image)
    for name, value in values.items():
        jobs[name] = value
    return render(jobs, [image])[0][0]


def _jittered(factor: list[float], order: tuple[int, ...] = (0, 1, 2, 3), **more: int) -> np.ndarray:
    return _looked(jittered=1, factor=factor, order=order, **more)


def test_no_look_is_the_image() -> None:
    assert np.array_equal(_looked(), _reference("img_u8"))


@pytest.mark.parametrize("case", PIL_CASES)
def test_colour_is_pils(case: str) -> None:
    """To the level, but where a product is a whole level: rounding decides."""
    difference = np.abs(_jittered(PIL_CASES[case]) - _reference(case).astype(int))
    assert difference.mean() < 0.02
    assert difference.max() <= 1


def test_grayscale_is_pils() -> None:
    expected = _reference("pil_gray").astype(int)[..., None]
    for found in (_jittered([1, 1, 0, 0]), _looked(grayscale=1)):
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_hue_is_pils() -> None:
    """PIL keeps hue and saturation in bytes: .8 levels on these saturated colours, which the shift changes
    by 16."""
    difference = np.abs(_jittered([1, 1, 1, 0.1]) - _reference("pil_hue_+0.1").astype(int))
    assert difference.mean() < 1
    assert difference.max() < 9


STEPS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
ORDERS = list(permutations(range(4)))


def _factors(order: tuple[int, ...]) -> list[float]:
    rng = np.random.default_rng(order)
    return [*rng.uniform(0.4, 1.8, 3), rng.uniform(-0.5, 0.5)]


@pytest.mark.parametrize("order", ORDERS)
def test_jitter_without_hue_is_torchvisions_of_images(order: tuple[int, ...]) -> None:
    """To the level, but where a product lies at a whole level or a mean between two."""
    factor, expected = [*_factors(order)[:3], 0], Image.fromarray(_reference("img_u8"))
    for step in order:
        expected = STEPS[step](expected, factor[step]) if factor[step] else expected
    difference = np.abs(_jittered(factor, order) - np.array(expected))
    assert difference.mean() < 0.05
    assert difference.max() <= 2


@pytest.mark.parametrize("order", ORDERS)
def test_jitter_is_torchvisions_of_tensors_in_every_order(order: tuple[int, ...]) -> None:
    """Of bytes; grey and hue have fractions there that images do not have, or the other way round, and
    contrast about another level, saturation about another grey multiply them."""
    factor, expected = _factors(order), torch.from_numpy(_reference("img_u8")).permute(2, 0, 1)
    for step in order:
        expected = STEPS[step](expected, factor[step])
    difference = np.abs(_jittered(factor, order) - expected.permute(1, 2, 0).numpy())
    assert difference.mean() < 0.8
    assert difference.max() < 9


def test_a_hues_shift_keeps_grey_and_comes_round() -> None:
    """A whole turn in halves; black, white and grey stay."""
    grey = np.full((8, 8, 3), [[[0.0], [255.0], [77.0], [128.0], [1.0], [2.0], [3.0], [250.0]]], np.uint8)
    jobs = table.new_jobs(1)
    jobs["size"], jobs["jittered"], jobs["factor"] = 8, 1, [1, 1, 1, 0.37]
    np.testing.assert_allclose(render(jobs, [grey])[0][0], grey, atol=1e-4)
    there, back = _jittered([1, 1, 1, 0.5]), _jittered([1, 1, 1, -0.5])
    np.testing.assert_allclose(there, back, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
def test_blur_is_near_pils(sigma: float) -> None:
    """PIL approximates the Gaussian by boxes; the photo's border is extended differently."""
    expected = _reference(f"pil_blur_radius{sigma}").astype(int)
    assert np.abs(_looked(sigma=sigma) - expected)[6:-6, 6:-6].mean() < 1.5


def test_solarize_is_deepminds() -> None:
    assert np.array_equal(_looked(solarized=1), _reference("pil_solarize_128"))


def test_drawn_looks_have_the_options_law() -> None:
    jobs = table.new_jobs(4000)
    options = PhotometricOptions(solarize_p=0.3, brightness=1.5, contrast=0, saturation=0, hue=0, grey_p=0)
    photometric.draw_photometric(jobs, options, np.random.default_rng(0))
    assert jobs["jittered"].mean() == pytest.approx(0.8, abs=0.02)
    assert (jobs["sigma"] > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert jobs["solarized"].mean() == pytest.approx(0.3, abs=0.03)
    assert not jobs["grayscale"].any()
    brightness, sigma = jobs["factor"][:, 0], jobs["sigma"][jobs["sigma"] > 0]
    for values, low, high in ((brightness, 0, 2.5), (sigma, 0.1, 2.0)):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() - 1e-6 and values.max() > high - 0.05 * (high - low)
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert (jobs["factor"][:, 1:] == [1, 1, 0]).all()
    _, counts = np.unique(jobs["order"], axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 166 - 5 * 13 and counts.max() < 167 + 5 * 13  # binomial: 13 is a deviation
