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

from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from nvidia.dali import fn, math
from nvidia.dali.data_node import DataNode
from pydantic import Field, model_validator

from dali_bgaug.config import Options, Range
from dali_bgaug.graph.context import Context, constant

_TO_GREY = np.tile([0.299, 0.587, 0.114], (3, 1))
_AXIS = np.full((3, 3), 1 / 3)
_KNOTS = 256


class PhotometricOptions(Options):
    """What a view looks like after its crop (MoCo-v2's defaults)."""

    brightness: float = Field(default=0.4, ge=0)
    """Factor drawn from [max(0, 1 - x), 1 + x]; likewise contrast and saturation."""
    contrast: float = Field(default=0.4, ge=0)
    saturation: float = Field(default=0.4, ge=0)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Shift drawn from [-x, x], in turns."""
    jitter_p: float = Field(default=0.8, ge=0, le=1)
    grey_p: float = Field(default=0.2, ge=0, le=1)
    blur_p: float = Field(default=0.5, ge=0, le=1)
    blur_sigma: Range = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels of the view (PIL's `radius`)."""
    solarize_p: float = Field(default=0.0, ge=0, le=1)
    """Probability of inverting the pixels at and above 128."""

    @model_validator(mode="after")
    def _check(self) -> "PhotometricOptions":
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma={list(self.blur_sigma)} must be two increasing positive numbers")
        return self


class Look(NamedTuple):
    """What one view of each photo of a batch will look like: arrays [N, ...] when drawn, nodes in a graph."""

    coloured: Any
    """bool: colours change (jitter, grayscale or both)."""
    matrix: Any
    """float32 [3, 3], and"""
    offset: Any
    """float32 [3, 3]: of `colour_matrix`."""
    blurred: Any
    """bool."""
    sigma: Any
    """float32: the blur's standard deviation in pixels."""
    solarized: Any
    """bool."""


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


def draw_look(options: PhotometricOptions, count: int, rng: np.random.Generator) -> Look:
    """A look for each of `count` photos."""
    jitter, grey, blur, solarize = (
        rng.random(count) < p for p in (options.jitter_p, options.grey_p, options.blur_p, options.solarize_p)
    )
    brightness, contrast, saturation = (
        np.where(jitter, rng.uniform(max(0.0, 1 - spread), 1 + spread, count), 1.0)
        for spread in (options.brightness, options.contrast, options.saturation)
    )
    hue = np.where(jitter, rng.uniform(-options.hue, options.hue, count), 0.0)
    matrix, offset = colour_matrix(brightness, contrast, saturation, hue, grey)
    sigma = rng.uniform(*options.blur_sigma, count).astype(np.float32)
    return Look(jitter | grey, matrix, offset, blur, sigma, solarize)


def photometric(context: Context, name: str, view: DataNode, options: PhotometricOptions) -> DataNode:
    """Jitter, grayscale, blur and solarize float [H, W, 3]; each with its own probability per photo."""
    nodes = dict.fromkeys(Look._fields)
    needed = _needed(options)
    if needed:
        nodes |= zip(needed, context.draw(name, partial(_draw, options, needed, context.batch_size)))
    return apply_look(view, Look(**nodes), context.device)


def _needed(options: PhotometricOptions) -> list[str]:
    """The fields of a look that these options use."""
    colours = options.jitter_p > 0 or options.grey_p > 0
    return [
        *(["coloured", "matrix", "offset"] if colours else []),
        *(["blurred", "sigma"] if options.blur_p > 0 else []),
        *(["solarized"] if options.solarize_p > 0 else []),
    ]


def _draw(
    options: PhotometricOptions, needed: list[str], count: int, rng: np.random.Generator, _: int
) -> list[np.ndarray]:
    look = draw_look(options, count, rng)
    return [getattr(look, name) for name in needed]


def apply_look(view: DataNode, look: Look, device: str) -> DataNode:
    """Give float [H, W, 3] a look; a step whose coin is None does not occur at all."""
    if look.coloured is not None:
        if look.coloured:
            coloured = colour(view, look.matrix, look.offset, device)
        else:
            coloured = view
        view = coloured
    if look.blurred is not None:
        if look.blurred:
            # DALI sizes the window by sigma, to 3 sigma; the customary fixed 23 costs several times more.
            soft = fn.gaussian_blur(view, sigma=look.sigma)
        else:
            soft = view
        view = soft
    if look.solarized is not None:
        if look.solarized:
            # Inverting what is at least 128 is the darker of a pixel and its inverse.
            solarized = math.min(view, constant(255, np.float32, device) - view)
        else:
            solarized = view
        view = solarized
    return view


def colour(view: DataNode, matrix: DataNode, offset: DataNode, device: str) -> DataNode:
    """Apply `colour_matrix` (nodes on the CPU) to float [H, W, 3] and clip to 0 .. 255."""
    mean = fn.reductions.mean(view, axes=[0, 1])
    if device == "cpu":
        changed = fn.coord_transform(view, M=matrix, T=fn.reductions.sum(offset * mean, axes=[1]))
    else:
        # A named argument is on the CPU: taking the mean there would stall the GPU once a view.
        changed = fn.coord_transform(view, M=matrix) + fn.reductions.sum(offset.gpu() * mean, axes=[1])
    # min of max takes half of clamp's time on the CPU.
    return math.min(math.max(changed, constant(0, np.float32, device)), constant(255, np.float32, device))
