"""Colour jitter, random grayscale, blur and solarize of a view, in torchvision's dialect.

Jitter and grayscale are linear in RGB once the view's mean grey is known, so they are one 3x3 matrix and an
offset per photo, applied by one operator:

    brightness b, contrast c about the mean grey m, saturation s (blend with grey), hue h, in this order
    x -> b c H(h) (G + s (I - G)) x + b (1 - c) m      grayscale: G of that

G projects on grey with Rec. 601 weights (as PIL and torchvision do). H(h) is the linear map nearest to HSV's
shift by h turns (`hue_matrices`).

What differs from torchvision, in grey levels of 255 on real photos (mean; `benchmarks/parity.md`):

    hue     HSV's shift is not linear: 2.4 off for a shift drawn from +-0.1 turns, which itself changes 3.9
    order   fixed, where ColorJitter draws it: 1.1 for factors of 0.6 to 1.4
    clips   once, not after each of the four: 1.8 for factors of 0.6 to 1.4 (a factor by itself: under 0.5)
    blur    a Gaussian cut at 3 sigma, where PIL's is made of boxes: 0.5 (to a window of 23 pixels: 0.003)
"""

from functools import cache

import numpy as np

from dali_bgaug.views.options import PhotometricOptions

_TO_GREY = np.tile([0.299, 0.587, 0.114], (3, 1))
_AXIS = np.full((3, 3), 1 / 3)
_KNOTS = 256


def _hexagon(hue: np.ndarray) -> np.ndarray:
    """The pure colours of HSV: turns [...] -> RGB in [0, 1], [..., 3]."""
    distance = np.abs((6 * hue[..., None] - np.array([0, 2, 4]) + 3) % 6 - 3)  # from red, green, blue
    return np.clip(2 - distance, 0, 1)


@cache
def _hue_table() -> np.ndarray:
    """`hue_matrices` at _KNOTS shifts from 0 to 1 turn, both ends included."""
    hues = np.arange(360) / 360
    # Photos are mostly orange (skin, wood, soil) and its complement (sky, water): leaning towards these takes
    # a quarter off the error of an even weighting, a rotation about grey. More would serve other hues badly.
    weight = np.exp(np.cos(4 * np.pi * (hues - 30 / 360)))[:, None]
    pure = _hexagon(hues) - 0.5
    grey = pure.mean(axis=1, keepdims=True)
    chroma = pure - grey
    inverse = np.linalg.pinv(chroma.T @ (weight * chroma))
    shifts = np.linspace(0, 1, _KNOTS)[:, None]
    target = _hexagon(hues + shifts) - 0.5 - grey
    return _AXIS + (target.transpose(0, 2, 1) @ (weight * chroma)) @ inverse


def hue_matrices(hue: np.ndarray) -> np.ndarray:
    """The linear maps nearest to HSV's hue shifts, that leave grey alone: turns [N] -> [N, 3, 3].

    Least squares over all hues, those weighted most that photos are made of.
    """
    place = (hue % 1) * (_KNOTS - 1)
    low = np.minimum(place.astype(int), _KNOTS - 2)
    part = (place - low)[:, None, None]
    return (1 - part) * _hue_table()[low] + part * _hue_table()[low + 1]


def colour_matrix(
    brightness: np.ndarray,
    contrast: np.ndarray,
    saturation: np.ndarray,
    hue: np.ndarray,
    grayscale: np.ndarray | bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The colour change as x -> matrix @ x + offset @ mean(x): two of float32 [N, 3, 3].

    Factors are [N], hue in turns, grayscale bool [N]: it comes after the jitter.
    """
    blend = _TO_GREY + saturation[:, None, None] * (np.eye(3) - _TO_GREY)
    matrix = (brightness * contrast)[:, None, None] * (hue_matrices(hue) @ blend)
    matrix = np.where(np.reshape(grayscale, (-1, 1, 1)), _TO_GREY @ matrix, matrix)
    offset = (brightness * (1 - contrast))[:, None, None] * _TO_GREY
    return matrix.astype(np.float32), offset.astype(np.float32)


def draw_look(jobs: np.ndarray, options: PhotometricOptions, rng: np.random.Generator) -> None:
    """Draw jitter, grayscale, blur and solarize of each job into its record, table.JOB [N]."""
    count = len(jobs)
    jitter, grey, blur, solarize = (
        rng.random(count) < p for p in (options.jitter_p, options.grey_p, options.blur_p, options.solarize_p)
    )
    brightness, contrast, saturation = (
        np.where(jitter, rng.uniform(max(0.0, 1 - spread), 1 + spread, count), 1.0)
        for spread in (options.brightness, options.contrast, options.saturation)
    )
    hue = np.where(jitter, rng.uniform(-options.hue, options.hue, count), 0.0)
    jobs["coloured"], jobs["solarized"] = jitter | grey, solarize
    jobs["matrix"], jobs["offset"] = colour_matrix(brightness, contrast, saturation, hue, grey)
    jobs["sigma"] = np.where(blur, rng.uniform(*options.blur_sigma, count), 0.0)
