"""Crop and resize on the CPU, of a photo or of its tiled background."""

import math

import numpy as np

from dali_bgaug.views.kernels_base import TAPS, compiled, copy, weighted_sum


@compiled
def _weights(start: float, end: float, length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Resample pixels start .. end (backwards if start > end) of a line of `length` to `size` pixels.

    A triangle as wide as the pixels it makes, one pixel at least. At the box's ends it reaches beyond, as
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
def resample(out: np.ndarray, size: int, photo: np.ndarray, crop_box: np.ndarray, tiled: np.ndarray) -> None:
    """Cut a crop box out and resize it.

    out: a line of size * size pixels and a value more; tiled: int32 [8], the crop box is of the photo's tiled
    background.
    """
    height, width, _ = photo.shape
    rows, row_weight = _weights(crop_box[0], crop_box[2], height, size)
    columns, column_weight = _weights(crop_box[1], crop_box[3], width, size)
    left, taps = columns.min(), -(-len(column_weight) // TAPS) * TAPS
    span = 3 * (columns.max() + len(column_weight) - left)
    weights = np.zeros((size, taps), np.float32)
    for x in range(size):
        for tap in range(len(column_weight)):
            weights[x, tap] = column_weight[tap, x]
    places, by_pixel = 3 * (columns - left).astype(np.int64), weights.reshape(-1)
    # Two lines in turn: reading what has just been written would wait until it is in the cache.
    long = span + 3 * TAPS + 1
    lines, parts = np.zeros(2 * long, np.float32), np.empty(2 * span, np.uint8)
    flat, width = photo.reshape(-1), 3 * width
    for y in range(size + 1):
        if y < size:
            _add_rows(
                lines, long * (y & 1), span, flat, width, 3 * left, rows[y], row_weight, y, tiled, parts
            )
        if y:
            _pick(out, 3 * size * (y - 1), lines, long * ((y - 1) & 1), places, by_pixel)


# Lines lie in arrays from a place on: a slice is counted, which takes as long as a part of the work on it.


@compiled
def _pick(
    out: np.ndarray, to: int, lines: np.ndarray, start: int, places: np.ndarray, weights: np.ndarray
) -> None:
    """A line of pixels, each a weighted sum of pixels of a line from its place on."""
    taps = len(weights) // len(places)
    for x in range(len(places)):
        weighted_sum(out, to + 3 * x, lines, start + places[x], weights, taps * x, taps)


@compiled
def _add_rows(
    lines: np.ndarray,
    to: int,
    span: int,
    photo: np.ndarray,
    width: int,
    left: int,
    first: int,
    weights: np.ndarray,
    y: int,
    tiled: np.ndarray,
    parts: np.ndarray,
) -> None:
    """A weighted sum of rows of a photo, or of its tiled background, from `first` and the column `left` on.

    photo: a line of bytes, so many (`width`) a row; weights: [taps, size], those of y; parts: bytes of two
    rows.
    """
    for tap in range(0, len(weights), 2):  # two at once, and whole lines, which the compiler makes SIMD of
        weight = weights[tap, y]
        other = weights[tap + 1, y] if tap + 1 < len(weights) else np.float32(0)
        one = width * (first + tap) + left
        two = one + width if other else one
        if tiled[2]:
            _tile_row(parts, 0, span, photo, width, left, first + tap, tiled)
            _tile_row(parts, span, span, photo, width, left, first + tap + (other != 0), tiled)
            _add_two(lines, to, span, parts, 0, span, weight, other, tap == 0)
        else:
            _add_two(lines, to, span, photo, one, two, weight, other, tap == 0)


@compiled
def _add_two(
    lines: np.ndarray,
    to: int,
    span: int,
    photo: np.ndarray,
    one: int,
    two: int,
    weight: float,
    other: float,
    first: bool,
) -> None:
    """Add two weighted rows of bytes to a line, or begin with them."""
    to, one, two = np.uintp(to), np.uintp(one), np.uintp(two)
    if first:
        for place in range(np.uintp(span)):
            lines[to + place] = weight * photo[one + place] + other * photo[two + place]
    elif other:
        for place in range(np.uintp(span)):
            lines[to + place] += weight * photo[one + place] + other * photo[two + place]
    else:
        for place in range(np.uintp(span)):
            lines[to + place] += weight * photo[one + place]


@compiled
def _tile_row(
    part: np.ndarray,
    to: int,
    span: int,
    photo: np.ndarray,
    width: int,
    left: int,
    number: int,
    tiled: np.ndarray,
) -> None:
    """A row of a photo's tiled background, from the column `left` on: so many bytes (`span`) of `part`."""
    copy(part, to, photo, width * number + left, span)
    if not tiled[0] <= number < tiled[2]:
        return
    start, end, strip, wide = 3 * tiled[1], 3 * tiled[3], 3 * tiled[5], 3 * tiled[7]
    strip += width * (tiled[4] + number % tiled[6])
    place, stop = max(start, left), min(end, left + span)
    while place < stop:  # a repetition of the strip after the other
        within = place % wide
        count = min(stop - place, wide - within)
        copy(part, to + place - left, photo, strip + within, count)
        place += count
