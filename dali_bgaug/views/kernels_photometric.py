"""Colour jitter, grayscale, blur, solarize and normalisation of a view on the CPU."""

import math
from typing import Any

import numpy as np

from dali_bgaug.views.kernels_base import LANES, LINE, ONE, THREE, TWO, compiled, copy, stream, symmetric_sum
from dali_bgaug.views.table import CONTRAST, CUT, HUE, SATURATION


@compiled
def colour(lines: np.ndarray, job: Any) -> None:
    """Colour jitter and grayscale of lines float32 [v, 3 v]."""
    begin, mean = 0, 0.0
    if job.jittered and job.factor[CONTRAST] != 1:
        while job.order[begin] != CONTRAST:
            begin += 1
        # What comes before contrast decides the mean that it is about, so it takes a pass of its own.
        mean = _steps(lines, job, 0, begin, 0.0) / (lines.size // 3)
    _steps(lines, job, begin, 4, np.floor(mean + 0.5))


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
            if factor == (0 if step == HUE else 1):
                continue
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
def _cut(value: float) -> float:
    """A level clipped and cut to a whole one, as PIL does in blending two images."""
    return np.float32(np.int32(min(max(value + np.float32(CUT), np.float32(0)), np.float32(255))))


@compiled
def _blend(values: np.ndarray, factor: float, level: float) -> None:
    """Blend each value with a level."""
    level = np.float32(level)
    for place in range(np.uintp(len(values))):
        values[place] = _cut(level + factor * (values[place] - level))


@compiled
def _saturate(red: np.ndarray, green: np.ndarray, blue: np.ndarray, factor: float) -> None:
    """Blend each pixel with its grey."""
    for x in range(np.uintp(len(red))):
        level = np.float32(np.int32(_grey(red[x], green[x], blue[x]) + np.float32(0.5)))
        red[x] = _cut(level + factor * (red[x] - level))
        green[x] = _cut(level + factor * (green[x] - level))
        blue[x] = _cut(level + factor * (blue[x] - level))


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
def blur_space(size: int, sigma: float) -> int:
    """How many values of space a blur takes."""
    return (size + 2 * math.ceil(3 * sigma)) * (3 * size + LANES)


@compiled
def blur(values: np.ndarray, size: int, sigma: float, rows: np.ndarray) -> None:
    """A Gaussian cut at 3 sigma.

    values: float32, a line of size * size pixels and LANES values more; rows: float32, space to work in.
    """
    reach, length = math.ceil(3 * sigma), 3 * size
    weights = np.empty(reach + 1, np.float32)
    for step in range(reach + 1):
        weights[step] = math.exp(-0.5 * (step / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    # Two lines in turn: reading what has just been written would wait until it is in the cache.
    long, high = length + 6 * reach + LANES, length + LANES
    lines = np.empty(2 * long, np.float32)
    for y in range(size + 1):
        if y < size:
            _put_line(lines, long * (y & 1) + 3 * reach, values, length * y, size, reach)
        if y:
            to, at = high * (y - 1 + reach), long * ((y - 1) & 1) + 3 * reach
            for place in range(0, length, LANES):
                symmetric_sum(rows, to + place, lines, at + place, 3, weights)
    for step in range(1, reach + 1):
        for y in (-step, size - 1 + step):
            to, at = high * (reach + y), high * (reach + _mirror(y, size))
            copy(rows, to, rows, at, length)
    for y in range(size):
        for place in range(0, length, LANES):
            symmetric_sum(values, length * y + place, rows, high * (y + reach) + place, high, weights)


@compiled
def _put_line(lines: np.ndarray, to: int, values: np.ndarray, at: int, size: int, reach: int) -> None:
    """Put a line of pixels into `lines`, with `reach` more pixels on both sides."""
    copy(lines, to, values, at, 3 * size)
    for step in range(1, reach + 1):
        for x in (-step, size - 1 + step):
            for channel in range(3):
                lines[to + 3 * x + channel] = values[at + 3 * _mirror(x, size) + channel]


@compiled
def solarize(values: np.ndarray) -> None:
    """Invert values of 128 and more: the darker of a value and its inverse."""
    for place in range(len(values)):
        values[place] = min(values[place], np.float32(255) - values[place])


@compiled
def normalise(out: np.ndarray, values: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    """Normalise values by channel, into `out`, both lines; scale, shift: [3].

    Nobody reads a finished image soon, so it goes past the cache.
    """
    block = 3 * LINE  # after so many values, channels and lines of the cache begin anew
    scales, shifts = np.empty(block, np.float32), np.empty(block, np.float32)
    for place in range(block):
        scales[place], shifts[place] = scale[place % 3], shift[place % 3]
    end = len(values) // block * block if out.ctypes.data % (4 * LINE) == 0 else 0
    for place in range(0, end, block):
        for part in range(0, block, LINE):
            stream(out, place + part, values, place + part, scales, shifts, part)
    for place in range(end, len(values)):
        out[place] = values[place] * scales[place % block] + shifts[place % block]
