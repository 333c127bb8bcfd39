"""The kernels of the CPU renderer: one compiled pass over a photo for each job of the table.

A job's picture is made by one thread, from the decoded photo to the finished view, while its pixels are in
the cache (`benchmarks/notes.md`: what that saves). `cpu.py` hands jobs to threads.

All that is compiled is in this file and in `table.py`: `cpu.py` keeps the machine code until one of them
changes.
"""

import math
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from dali_bgaug.views.table import CONTRAST, GREY, HUE, NOTHING, PICTURE, SATURATION, TIE

compiled = njit(nogil=True, fastmath=True)

_TAPS = 4
"""Pixels of a row added up at a time: as many as a reduction by two needs."""
_1, _2, _3, _6, _9 = np.array([1, 2, 3, 6, 9], np.uintp)
"""Places of pixels are unsigned: where one may be negative, Numba checks each, and there is no SIMD."""


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    def generate(_0: Any, builder: Any, _1: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@intrinsic
def _fetch_add(_: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address, one thread at a time; what it was before."""

    def generate(_0: Any, builder: Any, _1: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], cgutils.intp_t.as_pointer())
        return builder.atomic_rmw("add", pointer, values[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@compiled
def render_jobs(
    jobs: np.ndarray,
    chosen: np.ndarray,
    places: np.ndarray,
    put: np.ndarray,
    mask_size: int,
    stop: int,
    step: int,
    counter: int,
) -> None:
    """Make the pictures of jobs up to `stop`, so many (`step`) at a time, shared with other threads.

    jobs, chosen, places: table.JOB, table.CHOSEN, table.PLACE, [J]; put: bool [J], written; counter: address
    of an int64, the first job that no thread has taken.
    """
    while True:
        first = _fetch_add(counter, step)
        if first >= stop:
            return
        for number in range(first, min(first + step, stop)):
            if places[number].is_copied:
                continue
            while number >= 0:  # and then its copies, while it is in the cache
                _render_job(jobs, chosen, places, put, mask_size, number)
                number = places[number].copied_to


@compiled
def _render_job(
    jobs: np.ndarray, chosen: np.ndarray, places: np.ndarray, put: np.ndarray, mask_size: int, number: int
) -> None:
    """Make one picture."""
    put[number] = _is_put(jobs, chosen, number) and (
        jobs[number].coupled_to < 0 or _is_put(jobs, chosen, jobs[number].coupled_to)
    )
    job, place = jobs[number], places[number]
    size = job.size
    out = carray(_pointer(place.out), (size, size, 3), np.float32)
    if job.source == PICTURE:
        front = carray(_pointer(place.pixels), (size, size, 3), np.float32)
        _turn(out, front, job.turns)
    else:
        photo = carray(_pointer(place.pixels), (place.height, place.width, 3), np.uint8)
        _make_view(out, photo, job, place, chosen[number], put[number], mask_size)
    if put[number] and not job.before:
        _put_behind(out, job, place, jobs[job.mask_of], chosen[job.mask_of], mask_size)


@compiled
def _is_put(jobs: np.ndarray, chosen: np.ndarray, number: int) -> bool:
    """Whether what lies behind is put there, as far as this job's own mask says."""
    job = jobs[number]
    return job.behind != NOTHING and (job.only_seen == 0 or chosen[job.mask_of].seen != 0)


@compiled
def _make_view(
    out: np.ndarray, photo: np.ndarray, job: Any, place: Any, chosen: Any, put: bool, mask_size: int
) -> None:
    """Crop and flip, jitter, grayscale, blur, solarize, normalise.

    out: float32 [v, v, 3]; photo: uint8 [H, W, 3].
    """
    window, size = np.empty(4, np.float64), len(out)
    for edge in range(0, 4, 2):
        window[edge] = chosen.window[edge] * (place.height / place.frame_height)
        window[edge + 1] = chosen.window[edge + 1] * (place.width / place.frame_width)
    _resample(out, photo, window, place.tiled)
    if put and job.before:
        _put_behind(out, job, place, job, chosen, mask_size)
    if job.jittered or job.grayscale:
        _colour(out.reshape(size, -1), job)
    if job.sigma > 0:
        _blur(out.reshape(size, -1), job.sigma)
    if job.solarized:
        _solarize(out.reshape(-1))
    _normalise(out.reshape(size, -1), job.scale, job.shift)


@compiled
def _put_behind(out: np.ndarray, job: Any, place: Any, masked: Any, chosen: Any, mask_size: int) -> None:
    """Replace a picture's background; masked, chosen: of the job whose mask it is."""
    values, size = out.reshape(-1), len(out)
    mask = _mask(size, masked, place, chosen, mask_size)
    if job.behind == GREY:
        level = np.full(3, job.grey, np.float32)
        if not job.before:
            level = job.grey * job.scale + job.shift
        for pixel in range(np.uintp(len(mask))):
            if not mask[pixel]:
                for channel in range(_3):
                    values[_3 * pixel + channel] = level[channel]
        return
    other = carray(_pointer(place.behind), 3 * size * size, np.float32)
    end = 0
    while end < len(mask):  # run by run: masks are blobs
        begin, inside = end, mask[end]
        while end < len(mask) and mask[end] == inside:
            end += 1
        if not inside:
            _copy(values[3 * begin : 3 * end], other[3 * begin : 3 * end])


@compiled
def _turn(out: np.ndarray, picture: np.ndarray, turns: int) -> None:
    """A picture turned counter-clockwise by so many quarters."""
    if turns == 0:
        _copy(out.reshape(-1), picture.reshape(-1))
        return
    last = len(out) - 1
    for y in range(len(out)):
        for x in range(len(out)):
            row, column = (
                (x, last - y) if turns == 1 else (last - y, last - x) if turns == 2 else (last - x, y)
            )
            for channel in range(3):
                out[y, x, channel] = picture[row, column, channel]


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
def _resample(out: np.ndarray, photo: np.ndarray, window: np.ndarray, tiled: np.ndarray) -> None:
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
    _copy(row, lines[number, 3 * left : 3 * stop])
    column, stop = max(start, left), min(end, stop)
    other = lines[top + number % high]
    while column < stop:  # a repetition of the strip after the other
        within = column % wide
        count = 3 * min(stop - column, wide - within)
        _copy(row[3 * (column - left) :][:count], other[3 * (strip + within) :][:count])
        column += wide - within


@compiled
def _pick(
    pixels: np.ndarray, base: np.ndarray, line: np.ndarray, places: np.ndarray, weights: np.ndarray
) -> None:
    """Each of the pixels, [3 v], is its base and a weighted sum of four in a row of `line`, from its place
    on."""
    for x in range(np.uintp(len(places))):
        a, b, c, d = weights[x, 0], weights[x, 1], weights[x, 2], weights[x, 3]
        to, at = _3 * x, places[x]
        for channel in range(_3):
            pixels[to + channel] = (
                base[to + channel]
                + a * line[at + channel]
                + b * line[at + channel + _3]
                + c * line[at + channel + _6]
                + d * line[at + channel + _9]
            )


@compiled
def _colour(lines: np.ndarray, job: Any) -> None:
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
            red[x], green[x], blue[x] = pixels[_3 * x], pixels[_3 * x + _1], pixels[_3 * x + _2]
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
            pixels[_3 * x], pixels[_3 * x + _1], pixels[_3 * x + _2] = red[x], green[x], blue[x]
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
def _blur(lines: np.ndarray, sigma: float) -> None:
    """A Gaussian cut at 3 sigma, over lines float32 [v, 3 v]."""
    size, reach = len(lines), math.ceil(3 * sigma)
    weight = np.empty(reach + 1, np.float32)
    for step in range(reach + 1):
        weight[step] = math.exp(-0.5 * (step / sigma) ** 2)
    weight /= 2 * weight.sum() - weight[0]
    line = np.empty(3 * (size + 2 * reach), np.float32)
    for y in range(size):
        pixels = lines[y]
        _copy(line[3 * reach :], pixels)
        for step in range(1, reach + 1):
            for x in (-step, size - 1 + step):
                for channel in range(3):
                    line[3 * (x + reach) + channel] = pixels[3 * _mirror(x, size) + channel]
        _add_neighbours(pixels, weight, line, reach)
    # Rows are overwritten as they are made; those that later ones still need are kept.
    kept = np.empty((reach + 1, 3 * size), np.float32)
    for y in range(size):
        pixels = lines[y]
        _copy(kept[y % (reach + 1)], pixels)
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
def _copy(to: np.ndarray, values: np.ndarray) -> None:
    """Copy one line into another; Numba's own assignment is several times slower."""
    for place in range(len(values)):
        to[place] = values[place]


@compiled
def _solarize(values: np.ndarray) -> None:
    """Invert values of 128 and more: the darker of a value and its inverse."""
    for place in range(len(values)):
        values[place] = min(values[place], np.float32(255) - values[place])


@compiled
def _normalise(lines: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    """lines: [v, 3 v]."""
    length = lines.shape[1]
    scales, shifts = np.empty(length, np.float32), np.empty(length, np.float32)
    for place in range(length):
        scales[place], shifts[place] = scale[place % 3], shift[place % 3]
    for y in range(len(lines)):
        values = lines[y]
        for place in range(length):
            values[place] = values[place] * scales[place] + shifts[place]


@compiled
def _mask(size: int, job: Any, place: Any, chosen: Any, side: int) -> np.ndarray:
    """A view's mask, bool [size * size]: cropped, flipped and resized like the view, then distorted."""
    packed = carray(_pointer(place.mask), side * side // 8, np.uint8)
    mask = np.ones((size, size), np.bool_)
    if not job.box:
        tall, wide = side / place.frame_height, side / place.frame_width
        y0, x0, y1, x1 = chosen.window[0], chosen.window[1], chosen.window[2], chosen.window[3]
        byte, bit = np.empty(size, np.uintp), np.empty(size, np.uint8)
        for x in range(size):
            column = _nearest(x0 * wide, x1 * wide, x, size, side)
            byte[x], bit[x] = column >> 3, 0x80 >> (column & 7)
        for y in range(size):
            row = packed[_nearest(y0 * tall, y1 * tall, y, size, side) * (side // 8) :]
            pixels = mask[y]
            for x in range(size):
                pixels[x] = (row[byte[x]] & bit[x]) != 0
    if not job.distorted:
        return mask.reshape(-1)
    affine = chosen.affine
    distorted = np.zeros((size, size), np.bool_)
    for y in range(size):
        for x in range(size):
            column = math.floor(affine[0, 0] * (x + 0.5) + affine[0, 1] * (y + 0.5) + affine[0, 2])
            row = math.floor(affine[1, 0] * (x + 0.5) + affine[1, 1] * (y + 0.5) + affine[1, 2])
            if 0 <= row < size and 0 <= column < size:
                distorted[y, x] = mask[row, column]
    return distorted.reshape(-1)


@compiled
def _nearest(start: float, end: float, pixel: int, size: int, length: int) -> int:
    """Where of a line of `length` this of `size` pixels is taken from."""
    return min(max(math.floor(start + (pixel + 0.5) * (end - start) / size + TIE), 0), length - 1)
