"""The kernels of the GPU renderer, in Triton: what `windows.py` and `kernels.py` say, on the device.

Records of the table are read where they lie, by their addresses and the places of their fields. Sums are made
by tiles and added in a fixed order, without atomics: the same batch gives the same bits. Divisions and roots
that decide where a window lies are rounded as IEEE says, as NumPy's are. Counts that change from batch to
batch are not compiled in (`do_not_specialize`).
"""

import numpy as np
import triton
import triton.language as tl

from dali_bgaug.views import table
from dali_bgaug.views.table import CHOSEN, JOB, PLACE

ROWS, COLUMNS = 8, 32
"""Pixels of a program: a tile of a picture."""


def _offset(dtype: np.dtype, field: str) -> tl.constexpr:
    return tl.constexpr(dtype.fields[field][1])


_JOB, _CHOSEN, _PLACE = (tl.constexpr(dtype.itemsize) for dtype in (JOB, CHOSEN, PLACE))
_DRAWS = tl.constexpr(table.DRAWS)
_RANDOM, _CENTRAL = tl.constexpr(table.RANDOM), tl.constexpr(table.CENTRAL)
_GREY, _NOTHING = tl.constexpr(table.GREY), tl.constexpr(table.NOTHING)
_TIE = tl.constexpr(table.TIE)
_SIZE, _TURNS, _FRAME, _CROP, _FLIP, _RESIZE, _AREA, _LOG_RATIO, _FG_MIN, _UNIFORMS = (
    _offset(JOB, name)
    for name in (
        *("size", "turns", "frame", "crop", "flip", "resize", "area", "log_ratio", "fg_min", "draws"),
    )
)
_COLOURED, _MATRIX, _MEANS, _SIGMA, _SOLARIZED, _SCALE, _SHIFT = (
    _offset(JOB, name) for name in ("coloured", "matrix", "offset", "sigma", "solarized", "scale", "shift")
)
_BEHIND, _LEVEL, _BEFORE, _MASK_OF, _ONLY_SEEN, _COUPLED_TO, _DISTORTED, _BOX, _WARP, _TRANSLATE = (
    _offset(JOB, name)
    for name in (
        *("behind", "grey", "before", "mask_of", "only_seen", "coupled_to"),
        *("distorted", "box", "warp", "translate"),
    )
)
_WINDOW, _AFFINE, _SEEN = (_offset(CHOSEN, name) for name in ("window", "affine", "seen"))
_PIXELS, _OTHER, _MASK, _OUT, _HEIGHT, _WIDTH, _FRAME_HEIGHT, _FRAME_WIDTH = (
    _offset(PLACE, name)
    for name in ("pixels", "behind", "mask", "out", "height", "width", "frame_height", "frame_width")
)


@triton.jit
def _int(field):
    return tl.load(field.to(tl.pointer_type(tl.int32)))


@triton.jit
def _float(field, number: tl.constexpr = 0):
    return tl.load(field.to(tl.pointer_type(tl.float32)) + number)


@triton.jit
def _address(field):
    return tl.load(field.to(tl.pointer_type(tl.int64)))


@triton.jit
def _bits(value):
    """How many bits of a byte are set."""
    value = value - ((value >> 1) & 0x55)
    value = (value & 0x33) + ((value >> 2) & 0x33)
    return (value + (value >> 4)) & 0x0F


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _overlap(start, end, cells):
    """The part of each cell inside an interval."""
    return tl.maximum(tl.minimum(end, cells + 1.0) - tl.maximum(start, cells), 0.0)


@triton.jit
def _inside(y0, x0, y1, x1, height, width, grid, cells, N: tl.constexpr):
    """The foreground in a window: of `grid`, pixels of the mask in each of N x N cells."""
    rows = _overlap(tl.div_rn(y0, height) * N, tl.div_rn(y1, height) * N, cells)
    columns = _overlap(tl.div_rn(x0, width) * N, tl.div_rn(x1, width) * N, cells)
    return tl.sum(tl.sum(rows[:, None] * grid, axis=0) * columns)


@triton.jit
def choose_windows(
    jobs, chosen, places, masks, SIDE: tl.constexpr, GRID: tl.constexpr, DISTORTED: tl.constexpr
):
    """`windows.choose`: one program a job. masks: address of the first; SIDE: theirs, 0 without any; GRID:
    cells a side, filled up to a power of two."""
    number = tl.program_id(0).to(tl.int64)
    job, place, to = jobs + number * _JOB, places + number * _PLACE, chosen + number * _CHOSEN
    high, wide = _int(place + _FRAME_HEIGHT), _int(place + _FRAME_WIDTH)
    height, width = high.to(tl.float32), wide.to(tl.float32)
    crop, flip = _int(job + _CROP), _int(job + _FLIP)
    cells = tl.arange(0, GRID)
    first_row, first_column, end_row, end_column = SIDE, SIDE, 0, 0
    N: tl.constexpr = SIDE // 8
    if SIDE > 0:
        mask = (masks + _int(job + _FRAME).to(tl.int64) * (SIDE * N)).to(tl.pointer_type(tl.uint8))
        grid = tl.zeros((GRID, GRID), tl.int32)
        seen_columns = tl.zeros((GRID, GRID), tl.int32)
        known = (cells[:, None] < N) & (cells[None, :] < N)
        for line in range(8):
            at = mask + (8 * cells[:, None] + line) * N + cells[None, :]
            bits = tl.load(at, mask=known, other=0).to(tl.int32)
            grid += _bits(bits)
            if DISTORTED:
                seen_columns = seen_columns | bits
                lines = tl.where(tl.max(bits, axis=1) > 0, 8 * cells + line, -1)
                first_row = tl.minimum(first_row, tl.min(tl.where(lines >= 0, lines, SIDE)))
                end_row = tl.maximum(end_row, tl.max(lines) + 1)
        if DISTORTED:
            any_row = tl.reduce(seen_columns, 0, _either)
            for bit in range(8):
                lines = tl.where((any_row >> (7 - bit)) & 1 > 0, 8 * cells + bit, -1)
                first_column = tl.minimum(first_column, tl.min(tl.where(lines >= 0, lines, SIDE)))
                end_column = tl.maximum(end_column, tl.max(lines) + 1)
        grid = grid.to(tl.float32)
        total = tl.sum(grid)
    y0, x0, y1, x1 = height * 0, width * 0, height, width
    if crop == _CENTRAL:
        resize, side, short = _int(job + _RESIZE), _int(job + _SIZE), tl.minimum(high, wide)
        resized_y, resized_x = resize * high // short, resize * wide // short
        half_y, half_x = (resized_y - side) // 2, (resized_x - side) // 2
        start_y = half_y + (half_y & (resized_y - side) & 1)  # half, rounded to even
        start_x = half_x + (half_x & (resized_x - side) & 1)
        scale_y = tl.div_rn(height, resized_y.to(tl.float32))
        scale_x = tl.div_rn(width, resized_x.to(tl.float32))
        y0, y1 = start_y * scale_y, (start_y + side) * scale_y
        x0, x1 = start_x * scale_x, (start_x + side) * scale_x
    if crop == _RANDOM:
        low, span = _float(job + _AREA), _float(job + _AREA, 1) - _float(job + _AREA)
        log_low, log_high = _float(job + _LOG_RATIO), _float(job + _LOG_RATIO, 1)
        fg_min = _float(job + _FG_MIN)
        # torchvision's fallback: the largest central window of an allowed ratio.
        w = tl.minimum(tl.floor(height * tl.exp(log_high) + 0.5), width)
        h = tl.minimum(tl.floor(tl.div_rn(width, tl.exp(log_low)) + 0.5), height)
        y0, x0 = tl.floor((height - h) / 2), tl.floor((width - w) / 2)
        y1, x1 = y0 + h, x0 + w
        found, draw = 0, 0
        uniforms = (job + _UNIFORMS).to(tl.pointer_type(tl.float32))
        while (draw < _DRAWS) & (found == 0):
            area = (low + span * tl.load(uniforms + draw)) * (height * width)
            ratio = tl.exp(log_low + (log_high - log_low) * tl.load(uniforms + _DRAWS + draw))
            w = tl.maximum(tl.floor(tl.sqrt_rn(area * ratio) + 0.5), 1.0)
            h = tl.maximum(tl.floor(tl.sqrt_rn(tl.div_rn(area, ratio)) + 0.5), 1.0)
            y = tl.minimum(tl.floor(tl.load(uniforms + 2 * _DRAWS + draw) * (height - h + 1)), height - h)
            x = tl.minimum(tl.floor(tl.load(uniforms + 3 * _DRAWS + draw) * (width - w + 1)), width - w)
            good = (h <= height) & (w <= width)
            if SIDE > 0:
                inside = _inside(y, x, y + h, x + w, height, width, grid, cells, N)
                # The margin is for float32 sums: a window of the whole photo must satisfy fg_min = 1.
                enough = tl.div_rn(inside, tl.maximum(total, 1.0)) >= fg_min * (1 - 1e-5)
                good = good & ((fg_min <= 0) | (total == 0) | enough)
            y0, x0 = tl.where(good, y, y0), tl.where(good, x, x0)
            y1, x1 = tl.where(good, y + h, y1), tl.where(good, x + w, x1)
            found = good.to(tl.int32)
            draw += 1
    if SIDE > 0:
        inside = _inside(y0, x0, y1, x1, height, width, grid, cells, N)
        tl.store((to + _SEEN).to(tl.pointer_type(tl.int32)), ((inside > 0) & (total > 0)).to(tl.int32))
    left, right = tl.where(flip != 0, x1, x0), tl.where(flip != 0, x0, x1)
    window = (to + _WINDOW).to(tl.pointer_type(tl.float32))
    tl.store(window, y0)
    tl.store(window + 1, left)
    tl.store(window + 2, y1)
    tl.store(window + 3, right)
    if DISTORTED:
        if end_row == 0:
            first_row, first_column = 0, 0
        start_x, extent_x = _extent(first_column, end_column, left, right, width, SIDE)
        start_y, extent_y = _extent(first_row, end_row, y0, y1, height, SIDE)
        a, b = _float(job + _WARP), _float(job + _WARP, 1)
        c, d = _float(job + _WARP, 2), _float(job + _WARP, 3)
        shift_x = 0.5 + _float(job + _TRANSLATE) * extent_x
        shift_y = 0.5 + _float(job + _TRANSLATE, 1) * extent_y
        origin_x, origin_y = 0.5 - (a * shift_x + b * shift_y), 0.5 - (c * shift_x + d * shift_y)
        if _int(job + _BOX) != 0:  # the box is a full frame, squeezed
            a, b, origin_x = a / extent_x, b / extent_x, (origin_x - start_x) / extent_x
            c, d, origin_y = c / extent_y, d / extent_y, (origin_y - start_y) / extent_y
        size, affine = _int(job + _SIZE), (to + _AFFINE).to(tl.pointer_type(tl.float32))
        tl.store(affine, a)
        tl.store(affine + 1, b)
        tl.store(affine + 2, origin_x * size)
        tl.store(affine + 3, c)
        tl.store(affine + 4, d)
        tl.store(affine + 5, origin_y * size)


@triton.jit
def _extent(first, end, start, stop, length, side):
    """Start and extent of the foreground's box along one side of the view, as shares of it."""
    one = (first * length / side - start) / (stop - start)
    other = (end * length / side - start) / (stop - start)
    low = tl.minimum(tl.maximum(tl.minimum(one, other), 0.0), 1.0)
    high = tl.minimum(tl.maximum(tl.maximum(one, other), 0.0), 1.0)
    return low, tl.maximum(high - low, 1e-6)


@triton.jit
def _has_foreground(jobs, chosen, job):
    """Whether what lies behind is put there, as far as this job's own mask says."""
    own = jobs + job * _JOB
    seen = _int(chosen + _int(own + _MASK_OF).to(tl.int64) * _CHOSEN + _SEEN)
    return (_int(own + _BEHIND) != _NOTHING) & ((_int(own + _ONLY_SEEN) == 0) | (seen != 0))


@triton.jit
def _is_put(jobs, chosen, job):
    """Whether what lies behind is put there."""
    coupled = _int(jobs + job * _JOB + _COUPLED_TO).to(tl.int64)
    its = _has_foreground(jobs, chosen, tl.maximum(coupled, 0))
    return _has_foreground(jobs, chosen, job) & ((coupled < 0) | its)


@triton.jit
def _tile(size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The pixels of this program."""
    part = tl.program_id(1)
    across = (size + COLUMNS - 1) // COLUMNS
    rows = (part // across * ROWS + tl.arange(0, ROWS))[:, None]
    columns = (part % across * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return rows, columns, (rows < size) & (columns < size)


@triton.jit
def _parts(size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """How many programs a picture takes."""
    return ((size + ROWS - 1) // ROWS) * ((size + COLUMNS - 1) // COLUMNS)


@triton.jit
def _nearest(start, end, pixel, size, length):
    """Where of a line of `length` these of `size` pixels are taken from."""
    place = tl.floor(start + (pixel + 0.5) * (end - start) / size + _TIE)
    return tl.minimum(tl.maximum(place, 0.0), length - 1.0).to(tl.int32)


@triton.jit
def _foreground(jobs, chosen, place, masked, rows, columns, size, SIDE: tl.constexpr):
    """The mask of the job `masked` at these pixels; place: of the job that looks at it."""
    job, window = jobs + masked * _JOB, chosen + masked * _CHOSEN
    rows, columns = rows + 0 * columns, columns + 0 * rows  # one of each a pixel
    if _int(job + _DISTORTED) != 0:
        affine, x, y = window + _AFFINE, columns + 0.5, rows + 0.5
        columns = tl.floor(_float(affine) * x + _float(affine, 1) * y + _float(affine, 2)).to(tl.int32)
        rows = tl.floor(_float(affine, 3) * x + _float(affine, 4) * y + _float(affine, 5)).to(tl.int32)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    tall = SIDE / _int(place + _FRAME_HEIGHT).to(tl.float32)
    wide = SIDE / _int(place + _FRAME_WIDTH).to(tl.float32)
    y = _nearest(_float(window + _WINDOW) * tall, _float(window + _WINDOW, 2) * tall, rows, size, SIDE)
    x = _nearest(_float(window + _WINDOW, 1) * wide, _float(window + _WINDOW, 3) * wide, columns, size, SIDE)
    bits = _address(place + _MASK).to(tl.pointer_type(tl.uint8))
    byte = tl.load(bits + y * (SIDE // 8) + (x >> 3), mask=inside, other=0).to(tl.int32)
    foreground = ((byte >> (7 - (x & 7))) & 1) != 0
    return inside & (foreground | (_int(job + _BOX) != 0))


@triton.jit
def _tap(start, step, reach, pixel, number, length):
    """Tap `number` of pixels: its place on the line, clamped to its ends, and its weight, a triangle's."""
    centre = start + (pixel + 0.5) * step - 0.5
    place = tl.floor(centre - reach) + 1 + number
    weight = tl.maximum(1 - tl.abs(place - centre) / reach, 0.0)
    return tl.minimum(tl.maximum(place, 0.0), length - 1.0).to(tl.int32), weight


@triton.jit(do_not_specialize=["first", "parts"])
def resample(
    jobs, chosen, places, offsets, canvas, sums, first, parts,
    SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Crop, flip and resize with antialiasing, straight from the decoded photo; with `before` its
    background, too.

    canvas: float32, values of picture j of the wave (`first` and on) from offsets[j] on; sums: float32
    [wave, parts, 3], of each program's pixels."""
    wave = tl.program_id(0).to(tl.int64)
    number = wave + first
    job, place, window = jobs + number * _JOB, places + number * _PLACE, chosen + number * _CHOSEN + _WINDOW
    size = _int(job + _SIZE)
    if tl.program_id(1) < _parts(size, ROWS, COLUMNS):
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        height, width = _int(place + _HEIGHT), _int(place + _WIDTH)
        tall = height.to(tl.float32) / _int(place + _FRAME_HEIGHT).to(tl.float32)
        wide = width.to(tl.float32) / _int(place + _FRAME_WIDTH).to(tl.float32)
        y0, x0 = _float(window) * tall, _float(window, 1) * wide
        step_y, step_x = (_float(window, 2) * tall - y0) / size, (_float(window, 3) * wide - x0) / size
        reach_y, reach_x = tl.maximum(tl.abs(step_y), 1.0), tl.maximum(tl.abs(step_x), 1.0)
        pixels = _address(place + _PIXELS).to(tl.pointer_type(tl.uint8))
        red = tl.zeros((ROWS, COLUMNS), tl.float32)
        green, blue, total = red, red, red
        for tap_y in range(tl.ceil(2 * reach_y).to(tl.int32) + 1):
            y, weight_y = _tap(y0, step_y, reach_y, rows, tap_y, height)
            for tap_x in range(tl.ceil(2 * reach_x).to(tl.int32) + 1):
                x, weight_x = _tap(x0, step_x, reach_x, columns, tap_x, width)
                weight = weight_y * weight_x
                used = valid & (weight > 0)
                at = pixels + 3 * (y * width + x)
                red += weight * tl.load(at, mask=used, other=0).to(tl.float32)
                green += weight * tl.load(at + 1, mask=used, other=0).to(tl.float32)
                blue += weight * tl.load(at + 2, mask=used, other=0).to(tl.float32)
                total += weight
        red, green, blue = red / total, green / total, blue / total
        if SIDE > 0:
            if (_int(job + _BEFORE) != 0) & _is_put(jobs, chosen, number):
                masked = _int(job + _MASK_OF).to(tl.int64)
                inside = _foreground(jobs, chosen, place, masked, rows, columns, size, SIDE)
                level = _float(job + _LEVEL)
                other = _address(place + _OTHER).to(tl.pointer_type(tl.float32)) + 3 * (rows * size + columns)
                there = valid & (_int(job + _BEHIND) != _GREY)
                red = tl.where(inside, red, tl.load(other, mask=there, other=level))
                green = tl.where(inside, green, tl.load(other + 1, mask=there, other=level))
                blue = tl.where(inside, blue, tl.load(other + 2, mask=there, other=level))
        to = canvas + tl.load(offsets + number) + 3 * (rows * size + columns)
        tl.store(to, red, mask=valid)
        tl.store(to + 1, green, mask=valid)
        tl.store(to + 2, blue, mask=valid)
        sums += 3 * (wave * parts + tl.program_id(1))
        tl.store(sums, tl.sum(tl.where(valid, red, 0.0)))
        tl.store(sums + 1, tl.sum(tl.where(valid, green, 0.0)))
        tl.store(sums + 2, tl.sum(tl.where(valid, blue, 0.0)))


@triton.jit
def _row(job, red, green, blue, mean_red, mean_green, mean_blue, ROW: tl.constexpr):
    """One channel of the changed colour, clipped."""
    matrix, means = job + _MATRIX, job + _MEANS
    value = (
        _float(matrix, 3 * ROW) * red
        + _float(matrix, 3 * ROW + 1) * green
        + _float(matrix, 3 * ROW + 2) * blue
    )
    value += (
        _float(means, 3 * ROW) * mean_red
        + _float(means, 3 * ROW + 1) * mean_green
        + _float(means, 3 * ROW + 2) * mean_blue
    )
    return tl.minimum(tl.maximum(value, 0.0), 255.0)


@triton.jit
def _mean(sums, wave, parts, size, CHANNEL: tl.constexpr, PARTS: tl.constexpr,
          ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    part = tl.arange(0, PARTS)
    at = sums + 3 * (wave * parts + part) + CHANNEL
    return tl.sum(tl.load(at, mask=part < _parts(size, ROWS, COLUMNS), other=0.0)) / (size * size)


@triton.jit
def _mirror(place, size):
    """Places outside of 0 .. size - 1 mirrored at the outermost pixels, which are not repeated."""
    place = tl.abs(place) % (2 * size - 2)
    return tl.where(place < size, place, 2 * size - 2 - place)


@triton.jit
def _gaussian(step, sigma):
    return tl.exp(-0.5 * (step / sigma) * (step / sigma))


@triton.jit(do_not_specialize=["first", "parts"])
def blur_rows(
    jobs, offsets, canvas, blurred, sums, first, parts,
    PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Colour and Gaussian blur along x, of jobs that are blurred: from `canvas` to `blurred`."""
    wave = tl.program_id(0).to(tl.int64)
    job = jobs + (wave + first) * _JOB
    size, sigma = _int(job + _SIZE), _float(job + _SIGMA)
    if (tl.program_id(1) < _parts(size, ROWS, COLUMNS)) & (sigma > 0):
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        coloured = _int(job + _COLOURED) != 0
        mean_red = _mean(sums, wave, parts, size, 0, PARTS, ROWS, COLUMNS)
        mean_green = _mean(sums, wave, parts, size, 1, PARTS, ROWS, COLUMNS)
        mean_blue = _mean(sums, wave, parts, size, 2, PARTS, ROWS, COLUMNS)
        start = tl.load(offsets + wave + first)
        red = tl.zeros((ROWS, COLUMNS), tl.float32)
        green, blue, total = red, red, 0.0
        reach = tl.ceil(3 * sigma).to(tl.int32)
        for tap in range(2 * reach + 1):
            weight = _gaussian((tap - reach).to(tl.float32), sigma)
            at = canvas + start + 3 * (rows * size + _mirror(columns + tap - reach, size))
            r, g = tl.load(at, mask=valid, other=0.0), tl.load(at + 1, mask=valid, other=0.0)
            b = tl.load(at + 2, mask=valid, other=0.0)
            red += weight * tl.where(coloured, _row(job, r, g, b, mean_red, mean_green, mean_blue, 0), r)
            green += weight * tl.where(coloured, _row(job, r, g, b, mean_red, mean_green, mean_blue, 1), g)
            blue += weight * tl.where(coloured, _row(job, r, g, b, mean_red, mean_green, mean_blue, 2), b)
            total += weight
        to = blurred + start + 3 * (rows * size + columns)
        tl.store(to, red / total, mask=valid)
        tl.store(to + 1, green / total, mask=valid)
        tl.store(to + 2, blue / total, mask=valid)


@triton.jit
def _finished(job, value, foreground, put, other, valid, to, CHANNEL: tl.constexpr):
    """Solarize, normalise and store one channel, where it is foreground or nothing is put behind."""
    value = tl.where(_int(job + _SOLARIZED) != 0, tl.minimum(value, 255.0 - value), value)
    scale, shift = _float(job + _SCALE, CHANNEL), _float(job + _SHIFT, CHANNEL)
    value = value * scale + shift
    level = _float(job + _LEVEL) * scale + shift
    there = valid & put & (_int(job + _BEHIND) != _GREY)
    behind = tl.load(other + CHANNEL, mask=there, other=0.0).to(tl.float32)
    behind = tl.where(_int(job + _BEHIND) == _GREY, level, behind)
    value = tl.where(foreground, value, behind)
    tl.store(to + CHANNEL, value.to(to.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["first", "parts"])
def finish(
    jobs, chosen, places, offsets, canvas, blurred, sums, put, first, parts,
    HALF: tl.constexpr, SIDE: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Blur along y (or colour, of jobs that are not blurred), solarize, normalise, background; put: bool
    [J]."""
    wave = tl.program_id(0).to(tl.int64)
    number = wave + first
    job, place = jobs + number * _JOB, places + number * _PLACE
    size, sigma = _int(job + _SIZE), _float(job + _SIGMA)
    if tl.program_id(1) < _parts(size, ROWS, COLUMNS):
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        start = tl.load(offsets + number)
        red = tl.zeros((ROWS, COLUMNS), tl.float32)
        green, blue = red, red
        if sigma > 0:
            reach, total = tl.ceil(3 * sigma).to(tl.int32), 0.0
            for tap in range(2 * reach + 1):
                weight = _gaussian((tap - reach).to(tl.float32), sigma)
                at = blurred + start + 3 * (_mirror(rows + tap - reach, size) * size + columns)
                red += weight * tl.load(at, mask=valid, other=0.0)
                green += weight * tl.load(at + 1, mask=valid, other=0.0)
                blue += weight * tl.load(at + 2, mask=valid, other=0.0)
                total += weight
            red, green, blue = red / total, green / total, blue / total
        else:
            at = canvas + start + 3 * (rows * size + columns)
            red, green = tl.load(at, mask=valid, other=0.0), tl.load(at + 1, mask=valid, other=0.0)
            blue = tl.load(at + 2, mask=valid, other=0.0)
            if _int(job + _COLOURED) != 0:
                mean_red = _mean(sums, wave, parts, size, 0, PARTS, ROWS, COLUMNS)
                mean_green = _mean(sums, wave, parts, size, 1, PARTS, ROWS, COLUMNS)
                mean_blue = _mean(sums, wave, parts, size, 2, PARTS, ROWS, COLUMNS)
                r, g, b = red, green, blue
                red = _row(job, r, g, b, mean_red, mean_green, mean_blue, 0)
                green = _row(job, r, g, b, mean_red, mean_green, mean_blue, 1)
                blue = _row(job, r, g, b, mean_red, mean_green, mean_blue, 2)
        own = False
        foreground = valid
        if SIDE > 0:
            whether = _is_put(jobs, chosen, number)
            if tl.program_id(1) == 0:
                tl.store(put + number, whether.to(tl.int8))
            own = whether & (_int(job + _BEFORE) == 0)
            if own:
                masked = _int(job + _MASK_OF).to(tl.int64)
                foreground = _foreground(jobs, chosen, place, masked, rows, columns, size, SIDE)
        pixel = 3 * (rows * size + columns)
        other = _address(place + _OTHER).to(tl.pointer_type(tl.float32)) + pixel
        if HALF:
            to = _address(place + _OUT).to(tl.pointer_type(tl.float16)) + pixel
        else:
            to = _address(place + _OUT).to(tl.pointer_type(tl.float32)) + pixel
        _finished(job, red, foreground, own, other, valid, to, 0)
        _finished(job, green, foreground, own, other, valid, to, 1)
        _finished(job, blue, foreground, own, other, valid, to, 2)


@triton.jit(do_not_specialize=["first"])
def copy(
    jobs, chosen, places, put, first,
    HALF: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A finished picture, turned, or with another one where the mask says background."""
    number = tl.program_id(0).to(tl.int64) + first
    job, place = jobs + number * _JOB, places + number * _PLACE
    size, turns = _int(job + _SIZE), _int(job + _TURNS)
    if tl.program_id(1) < _parts(size, ROWS, COLUMNS):
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        last = size - 1
        y = tl.where(
            turns == 1, columns, tl.where(turns == 2, last - rows, tl.where(turns == 3, last - columns, rows))
        )
        x = tl.where(
            turns == 1, last - rows, tl.where(turns == 2, last - columns, tl.where(turns == 3, rows, columns))
        )
        if HALF:
            front = _address(place + _PIXELS).to(tl.pointer_type(tl.float16))
            behind = _address(place + _OTHER).to(tl.pointer_type(tl.float16))
            out = _address(place + _OUT).to(tl.pointer_type(tl.float16))
        else:
            front = _address(place + _PIXELS).to(tl.pointer_type(tl.float32))
            behind = _address(place + _OTHER).to(tl.pointer_type(tl.float32))
            out = _address(place + _OUT).to(tl.pointer_type(tl.float32))
        foreground = valid
        if SIDE > 0:
            whether = _is_put(jobs, chosen, number)
            if tl.program_id(1) == 0:
                tl.store(put + number, whether.to(tl.int8))
            if whether:
                masked = _int(job + _MASK_OF).to(tl.int64)
                foreground = _foreground(jobs, chosen, place, masked, rows, columns, size, SIDE)
        pixel = 3 * (rows * size + columns)
        for channel in range(3):
            own = tl.load(front + 3 * (y * size + x) + channel, mask=valid & foreground, other=0.0)
            other = tl.load(behind + pixel + channel, mask=valid & (foreground == 0), other=0.0)
            tl.store(out + pixel + channel, tl.where(foreground, own, other), mask=valid)


_TYPES = {"parts": "i32", "first": "i32", "offsets": "*i64", "put": "*i8"}
_TYPES |= dict.fromkeys(("canvas", "blurred", "sums"), "*fp32")
"""Of arguments; all others are addresses."""


def signature(kernel: triton.JITFunction, constants: dict[str, object]) -> dict[str, str]:
    """The types of a kernel's arguments, for compiling it where there is no GPU."""
    return {name: "constexpr" if name in constants else _TYPES.get(name, "i64") for name in kernel.arg_names}
