"""Crop and resize on the CPU, of a photo or of its tiled background."""

import math

import numpy as np

from dali_bgaug.views.kernels_base import NINE, SIX, THREE, compiled, copy

_TAPS = 4
"""Pixels of a row added up at a time: as many as a reduction by two needs."""


@compiled
def _weights(start: float, end: float, length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Resample pixels start .. end (backwards if start > end) of a line of `length` to `size` pixels.

    A triangle as wide as the pixels it makes, one pixel at least. At the window's ends it reaches beyond, as
    DALI's does; beyond the line is its outermost pixel again. Pixel i is the sum over k of
    weight[k, i] * line[first[i] + k].
    """
    step = (end - start) / size
    reach = max(abs(step), 1.0)
    taps = min(math.ceil(2 * reach), length)
    first, weight = np.empty(size, np.int32), np.zeros((taps, size), np.float32)
    for pixel in range(size):
        centre = start + (pixel + 0.5) * step - 0.5
        begin = math.floor(centre - reach) + 1
        place = min(max(begin, 0), length - taps)
        total = 0.0
        for number in range(begin, math.ceil(centre + reach)):
            value = 1 - abs(number - centre) / reach
            weight[min(max(number, 0), length - 1) - place, pixel] += value
            total += value
        first[pixel] = place
        for tap in range(taps):
            weight[tap, pixel] /= total
    return first, weight


@compiled
def resample(out: np.ndarray, photo: np.ndarray, window: np.ndarray, tiled: np.ndarray) -> None:
    """Cut a window out and resize it; tiled: int32 [8], the window is of the photo's tiled background."""
    size, (height, width, _) = len(out), photo.shape
    rows, row_weight = _weights(window[0], window[2], height, size)
    columns, column_weight = _weights(window[1], window[3], width, size)
    left, taps = columns.min(), len(column_weight)
    span = 3 * (columns.max() + taps - left)
    rounds = -(-taps // _TAPS)
    weights, places = np.zeros((rounds, size, _TAPS), np.float32), np.empty((rounds, size), np.uintp)
    for number in range(rounds * _TAPS):
        for x in range(size):
            places[number // _TAPS, x] = 3 * (columns[x] - left + number // _TAPS * _TAPS)
            if number < taps:
                weights[number // _TAPS, x, number % _TAPS] = column_weight[number, x]
    lines = photo.reshape(height, 3 * width)
    cut, row = lines[:, 3 * left : 3 * left + span], np.empty(span, np.uint8)
    line, nothing = np.zeros(span + 3 * _TAPS, np.float32), np.zeros(3 * size, np.float32)
    for y in range(size):
        # Rows first: whole lines at once, which the compiler makes SIMD of.
        for tap in range(len(row_weight)):
            weight, number = row_weight[tap, y], rows[y] + tap
            if tap and not weight:
                continue
            if tiled[0] <= number < tiled[2]:
                _tile_row(row, lines, number, left, tiled)
                _add(line, row, weight, tap == 0)
            else:
                _add(line, cut[number], weight, tap == 0)
        pixels = out[y].reshape(-1)
        for number in range(rounds):
            _pick(pixels, pixels if number else nothing, line, places[number], weights[number])


@compiled
def _add(line: np.ndarray, source: np.ndarray, weight: float, first: bool) -> None:
    """Add a weighted row of bytes to `line`, or begin with it."""
    if first:
        for place in range(len(source)):
            line[place] = weight * source[place]
    else:
        for place in range(len(source)):
            line[place] += weight * source[place]


@compiled
def _tile_row(row: np.ndarray, lines: np.ndarray, number: int, left: int, tiled: np.ndarray) -> None:
    """A row of the tiled background that crosses its box, from the column `left` on: written into `row`."""
    (_, start, _, end, top, strip, high, wide), stop = tiled, left + len(row) // 3
    copy(row, lines[number, 3 * left : 3 * stop])
    column, stop = max(start, left), min(end, stop)
    other = lines[top + number % high]
    while column < stop:  # a repetition of the strip after the other
        within = column % wide
        count = 3 * min(stop - column, wide - within)
        copy(row[3 * (column - left) :][:count], other[3 * (strip + within) :][:count])
        column += wide - within


@compiled
def _pick(
    pixels: np.ndarray, base: np.ndarray, line: np.ndarray, places: np.ndarray, weights: np.ndarray
) -> None:
    """Each of the pixels, [3 v], is its base and a weighted sum of four in a row of `line`, from its place
    on."""
    for x in range(np.uintp(len(places))):
        a, b, c, d = weights[x, 0], weights[x, 1], weights[x, 2], weights[x, 3]
        to, at = THREE * x, places[x]
        for channel in range(THREE):
            pixels[to + channel] = (
                base[to + channel]
                + a * line[at + channel]
                + b * line[at + channel + THREE]
                + c * line[at + channel + SIX]
                + d * line[at + channel + NINE]
            )
