"""Looks held against PIL's and DeepMind's, on an image of many colours."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_bgaug.views import colour, table
from dali_bgaug.views.options import PhotometricOptions
from tests.dali_bgaug.views.test_cpu import render

DATA = Path(__file__).parents[2] / "data"
PIL_CASES = {
    "pil_brightness_1.3": (1.3, 1.0, 1.0, 0.0),
    "pil_contrast_1.4": (1.0, 1.4, 1.0, 0.0),
    "pil_saturation_1.2": (1.0, 1.0, 1.2, 0.0),
}


def _reference(name: str) -> np.ndarray:
    with np.load(DATA / "aug_ops.npz") as reference:
        return reference[name]


def _looked(**values: Any) -> np.ndarray:
    """The reference image with this look, float32 [48, 48, 3]."""
    image = _reference("img_u8")
    jobs = table.new_jobs(1)
    jobs["size"] = len(image)
    for name, value in values.items():
        jobs[name] = value
    return render(jobs, [image])[0][0]


def _coloured(*factors: float, grayscale: bool = False) -> np.ndarray:
    matrix, offset = colour.colour_matrix(*(np.array([factor]) for factor in factors), grayscale)
    return _looked(coloured=1, matrix=matrix, offset=offset).round().astype(int)


def test_no_look_is_the_image() -> None:
    assert np.array_equal(_looked(), _reference("img_u8"))


@pytest.mark.parametrize("case", PIL_CASES)
def test_colour_is_pils(case: str) -> None:
    """PIL truncates and rounds the mean grey; more than a level and a half would be another formula."""
    difference = np.abs(_coloured(*PIL_CASES[case]) - _reference(case).astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.7


def test_grayscale_is_pils() -> None:
    expected = _reference("pil_gray").astype(int)[..., None]
    assert np.abs(_coloured(1.0, 1.0, 0.0, 0.0) - expected).max() <= 1
    assert np.abs(_coloured(1.0, 1.0, 1.0, 0.0, grayscale=True) - expected).max() <= 1


def test_hue_is_near_pils() -> None:
    """A linear map is not HSV's hexagon: on these saturated colours it is 12.0 levels off, doing nothing
    16.2."""
    image, expected = _reference("img_u8").astype(int), _reference("pil_hue_+0.1").astype(int)
    found = _coloured(1.0, 1.0, 1.0, 0.1)
    assert np.abs(found - expected).mean() < 0.78 * np.abs(image - expected).mean()


def test_hue_maps() -> None:
    """No shift and a whole turn change nothing; grey stays; what photos are made of, skin and sky, comes near
    HSV's colours."""
    maps = colour.hue_matrices(np.array([0.0, 1.0, 0.08, -0.08, 0.5]))
    assert np.abs(maps[:2] - np.eye(3)).max() < 1e-6
    assert np.abs(maps @ np.ones(3) - 1).max() < 1e-6
    skin, sky = np.array([224, 172, 105]), np.array([112, 160, 215])
    for pixel in (skin, sky):
        for number, shift in ((2, 0.08), (3, -0.08)):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
            expected = 255 * np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
            assert np.abs(maps[number] @ pixel - expected).max() < 0.4 * np.abs(pixel - expected).max()


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
    colour.draw_look(jobs, options, np.random.default_rng(0))
    assert jobs["coloured"].mean() == pytest.approx(0.8, abs=0.02)
    assert (jobs["sigma"] > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert jobs["solarized"].mean() == pytest.approx(0.3, abs=0.03)
    brightness, sigma = jobs["matrix"][jobs["coloured"] == 1, 0, 0], jobs["sigma"][jobs["sigma"] > 0]
    for values, low, high in ((brightness, 0, 2.5), (sigma, 0.1, 2.0)):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() - 1e-6 and values.max() > high - 0.05 * (high - low)
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    plain = jobs["matrix"][jobs["coloured"] == 0]
    assert np.abs(plain - np.eye(3)).max() < 1e-6
