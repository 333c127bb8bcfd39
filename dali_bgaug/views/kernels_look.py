"""Colour jitter, grayscale, blur, solarize and normalisation of a view on the CPU."""

import math
from typing import Any

import numpy as np

from dali_bgaug.views.kernels_base import ONE, THREE, TWO, compiled, copy
from dali_bgaug.views.table import CONTRAST, HUE, SATURATION


@compiled
def colour(lines: np.ndarray, job: Any) -> None:
    """Colour jitter and grayscale of lines float32 [v, 3 v]."""
    begin, mean = 0, 0.0
    if job.jittered and job.factor[CONTRAST] != 1:
        while job.order[begin] != CONTRAST:
            begin += 1
        # What comes before contrast decides the mean that it is about, so it takes a pass of its own.
        mean = _steps(lines, job, 0, begin, 0.0) / (lines.size // 3)
    _steps(lines, job, begin, 4, mean)


@compiled
def _steps(lines: np.ndarray, job: Any, begin: int, end: int, mean: float) -> float:
    """Steps `begin` to `end` of the jitter and, after the last one, grayscale; returns the sum of all grey.

    mean: that contrast is about.
    """
    size, total = len(lines), 0.0
    planes = np.empty((3, size), np.float32)  # SIMD takes colours apart
    red, green, blue = planes[0], planes[1], planes[2]
    for y in range(size):
        pixels = lines[y]
        for x in range(np.uintp(size)):
            red[x], green[x], blue[x] = pixels[THREE * x], pixels[THREE * x + ONE], pixels[THREE * x + TWO]
        for number in range(begin, end if job.jittered else begin):
            step = job.order[number]
            factor = job.factor[step]
            if step == HUE:
                _shift_hue(red, green, blue, factor)
            elif step == SATURATION:
                _saturate(red, green, blue, factor)
            else:
                _blend(planes.reshape(-1), factor, np.float32(mean if step == CONTRAST else 0))
        if end == 4 and job.grayscale:
            _saturate(red, green, blue, np.float32(0))
        line = np.float32(0)
        for x in range(np.uintp(size)):
            pixels[THREE * x], pixels[THREE * x + ONE], pixels[THREE * x + TWO] = red[x], green[x], blue[x]
            line += _grey(red[x], green[x], blue[x])
        total += line
    return total


@compiled
def _grey(red: float, green: float, blue: float) -> float:
    """Grey with Rec. 601 weights, as PIL and torchvision have it."""
    return np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue


@compiled
def _blend(values: np.ndarray, factor: float, level: float) -> None:
    """factor * value + (1 - factor) * level, clipped."""
    shift, low, high = (np.float32(1) - factor) * level, np.float32(0), np.float32(255)
    for place in range(np.uintp(len(values))):
        values[place] = min(max(factor * values[place] + shift, low), high)


@compiled
def _saturate(red: np.ndarray, green: np.ndarray, blue: np.ndarray, factor: float) -> None:
    """Blend each pixel with its grey, clipped."""
    rest, low, high = np.float32(1) - factor, np.float32(0), np.float32(255)
    for x in range(np.uintp(len(red))):
        level = rest * _grey(red[x], green[x], blue[x])
        red[x] = min(max(factor * red[x] + level, low), high)
        green[x] = min(max(factor * green[x] + level, low), high)
        blue[x] = min(max(factor * blue[x] + level, low), high)


@compiled
def _shift_hue(red: np.ndarray, green: np.ndarray, blue: np.ndarray, turns: float) -> None:
    """HSV's hue shifted, without branches: a pixel's largest and smallest value stay."""
    shift, zero, one, two, three, six = (
        np.float32(6) * turns,
        np.float32(0),
        np.float32(1),
        np.float32(2),
        np.float32(3),
        np.float32(6),
    )
    for x in range(np.uintp(len(red))):
        r, g, b = red[x], green[x], blue[x]
        high, low = max(r, g, b), min(r, g, b)
        span = high - low
        scale = one / (span if span > zero else one)
        hue = (r - g) * scale + two + two
        hue = (b - r) * scale + two if high == g else hue
        hue = (g - b) * scale if high == r else hue
        hue += shift  # in sixths of a turn, -4 to 8
        hue = hue + six if hue < zero else hue
        hue = hue - six if hue >= six else hue
        red[x] = low + span * min(max(abs(hue - three) - one, zero), one)
        green[x] = low + span * min(max(two - abs(hue - two), zero), one)
        blue[x] = low + span * min(max(two - abs(hue - two - two), zero), one)


@compiled
def _mirror(place: int, size: int) -> int:
    """A place outside of 0 .. size - 1 mirrored at the outermost pixels, which are not repeated."""
    while place < 0 or place >= size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place


@compiled
def blur(lines: np.ndarray, sigma: float) -> None:
    """A Gaussian cut at 3 sigma, over lines float32 [v, 3 v]."""
    size, reach = len(lines), math.ceil(3 * sigma)
    weight = np.empty(reach + 1, np.float32)
    for step in range(reach + 1):
        weight[step] = math.exp(-0.5 * (step / sigma) ** 2)
    weight /= 2 * weight.sum() - weight[0]
    line = np.empty(3 * (size + 2 * reach), np.float32)
    for y in range(size):
        pixels = lines[y]
        copy(line[3 * reach :], pixels)
        for step in range(1, reach + 1):
            for x in (-step, size - 1 + step):
                for channel in range(3):
                    line[3 * (x + reach) + channel] = pixels[3 * _mirror(x, size) + channel]
        _add_neighbours(pixels, weight, line, reach)
    # Rows are overwritten as they are made; those that later ones still need are kept.
    kept = np.empty((reach + 1, 3 * size), np.float32)
    for y in range(size):
        pixels = lines[y]
        copy(kept[y % (reach + 1)], pixels)
        pixels *= weight[0]
        for step in range(1, reach + 1):
            above, below = _mirror(y - step, size), _mirror(y + step, size)
            first = lines[above] if above > y else kept[above % (reach + 1)]
            second = lines[below] if below > y else kept[below % (reach + 1)]
            part = weight[step]
            for place in range(3 * size):
                pixels[place] += part * (first[place] + second[place])


@compiled
def _add_neighbours(pixels: np.ndarray, weight: np.ndarray, line: np.ndarray, reach: int) -> None:
    """A line of pixels blurred along itself; line: the same with `reach` more pixels on both sides."""
    middle = line[3 * reach :]
    for place in range(len(pixels)):
        pixels[place] = weight[0] * middle[place]
    for step in range(1, reach + 1):
        part, before, after = weight[step], line[3 * (reach - step) :], line[3 * (reach + step) :]
        for place in range(len(pixels)):
            pixels[place] += part * (before[place] + after[place])


@compiled
def solarize(values: np.ndarray) -> None:
    """Invert values of 128 and more: the darker of a value and its inverse."""
    for place in range(len(values)):
        values[place] = min(values[place], np.float32(255) - values[place])


@compiled
def normalise(lines: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    """lines: [v, 3 v]."""
    length = lines.shape[1]
    scales, shifts = np.empty(length, np.float32), np.empty(length, np.float32)
    for place in range(length):
        scales[place], shifts[place] = scale[place % 3], shift[place % 3]
    for y in range(len(lines)):
        values = lines[y]
        for place in range(length):
            values[place] = values[place] * scales[place] + shifts[place]
