"""Crop boxes on the GPU, in Triton: `crop_boxes.choose`, draw for draw.

Divisions and roots that decide where a crop box lies are rounded as IEEE says, as NumPy's are.
"""

import triton
import triton.language as tl

from dali_bgaug.views import table
from dali_bgaug.views.gpu_records import (
    ADDRESS_BYTES,
    CROP_BYTES,
    JOB_BYTES,
    load_float,
    load_int,
    offset_of,
)
from dali_bgaug.views.table import ADDRESS, CROP, JOB

_DRAWS = tl.constexpr(table.DRAWS)
_RANDOM, _CENTRAL = tl.constexpr(table.RANDOM), tl.constexpr(table.CENTRAL)
_SIZE, _FRAME, _CROP, _FLIP, _RESIZE, _AREA, _LOG_RATIO, _FG_MIN, _UNIFORMS, _BOX, _WARP, _TRANSLATE = (
    offset_of(JOB, name)
    for name in (
        *("size", "frame", "crop", "flip", "resize", "area", "log_ratio", "fg_min", "draws"),
        *("box", "warp", "translate"),
    )
)
_CROP_BOX, _AFFINE, _VISIBLE = (offset_of(CROP, name) for name in ("crop_box", "affine", "visible"))
_FRAME_HEIGHT, _FRAME_WIDTH = (offset_of(ADDRESS, name) for name in ("frame_height", "frame_width"))


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
    """The foreground in a crop box: of `grid`, pixels of the mask in each of N x N cells."""
    rows = _overlap(tl.div_rn(y0, height) * N, tl.div_rn(y1, height) * N, cells)
    columns = _overlap(tl.div_rn(x0, width) * N, tl.div_rn(x1, width) * N, cells)
    return tl.sum(tl.sum(rows[:, None] * grid, axis=0) * columns)


@triton.jit
def choose_crop_boxes(
    jobs, crops, addresses, masks, SIDE: tl.constexpr, GRID: tl.constexpr, DISTORTED: tl.constexpr
):
    """`crop_boxes.choose`: one program a job. masks: address of the first; SIDE: theirs, 0 without any; GRID:
    cells a side, filled up to a power of two."""
    number = tl.program_id(0).to(tl.int64)
    job, address, to = (
        jobs + number * JOB_BYTES,
        addresses + number * ADDRESS_BYTES,
        crops + number * CROP_BYTES,
    )
    high, wide = load_int(address + _FRAME_HEIGHT), load_int(address + _FRAME_WIDTH)
    height, width = high.to(tl.float32), wide.to(tl.float32)
    crop, flip = load_int(job + _CROP), load_int(job + _FLIP)
    cells = tl.arange(0, GRID)
    first_row, first_column, end_row, end_column = SIDE, SIDE, 0, 0
    N: tl.constexpr = SIDE // 8
    if SIDE > 0:
        mask = (masks + load_int(job + _FRAME).to(tl.int64) * (SIDE * N)).to(tl.pointer_type(tl.uint8))
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
        resize, side, short = load_int(job + _RESIZE), load_int(job + _SIZE), tl.minimum(high, wide)
        resize = tl.where(resize == 0, short, resize)
        resized_y, resized_x = resize * high // short, resize * wide // short
        half_y, half_x = (resized_y - side) // 2, (resized_x - side) // 2
        start_y = half_y + (half_y & (resized_y - side) & 1)  # half, rounded to even
        start_x = half_x + (half_x & (resized_x - side) & 1)
        scale_y = tl.div_rn(height, resized_y.to(tl.float32))
        scale_x = tl.div_rn(width, resized_x.to(tl.float32))
        y0, y1 = start_y * scale_y, (start_y + side) * scale_y
        x0, x1 = start_x * scale_x, (start_x + side) * scale_x
    if crop == _RANDOM:
        low, span = load_float(job + _AREA), load_float(job + _AREA, 1) - load_float(job + _AREA)
        log_low, log_high = load_float(job + _LOG_RATIO), load_float(job + _LOG_RATIO, 1)
        fg_min = load_float(job + _FG_MIN)
        # torchvision's fallback: the largest central crop box of an allowed ratio.
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
                # The margin is for float32 sums: a crop box of the whole photo must satisfy fg_min = 1.
                enough = tl.div_rn(inside, tl.maximum(total, 1.0)) >= fg_min * (1 - 1e-5)
                good = good & ((fg_min <= 0) | (total == 0) | enough)
            y0, x0 = tl.where(good, y, y0), tl.where(good, x, x0)
            y1, x1 = tl.where(good, y + h, y1), tl.where(good, x + w, x1)
            found = good.to(tl.int32)
            draw += 1
    if SIDE > 0:
        inside = _inside(y0, x0, y1, x1, height, width, grid, cells, N)
        tl.store((to + _VISIBLE).to(tl.pointer_type(tl.int32)), ((inside > 0) & (total > 0)).to(tl.int32))
    left, right = tl.where(flip != 0, x1, x0), tl.where(flip != 0, x0, x1)
    crop_box = (to + _CROP_BOX).to(tl.pointer_type(tl.float32))
    tl.store(crop_box, y0)
    tl.store(crop_box + 1, left)
    tl.store(crop_box + 2, y1)
    tl.store(crop_box + 3, right)
    if DISTORTED:
        if end_row == 0:
            first_row, first_column = 0, 0
        start_x, extent_x = _extent(first_column, end_column, left, right, width, SIDE)
        start_y, extent_y = _extent(first_row, end_row, y0, y1, height, SIDE)
        a, b = load_float(job + _WARP), load_float(job + _WARP, 1)
        c, d = load_float(job + _WARP, 2), load_float(job + _WARP, 3)
        shift_x = 0.5 + load_float(job + _TRANSLATE) * extent_x
        shift_y = 0.5 + load_float(job + _TRANSLATE, 1) * extent_y
        origin_x, origin_y = 0.5 - (a * shift_x + b * shift_y), 0.5 - (c * shift_x + d * shift_y)
        if load_int(job + _BOX) != 0:  # the box is a full frame, squeezed
            a, b, origin_x = a / extent_x, b / extent_x, (origin_x - start_x) / extent_x
            c, d, origin_y = c / extent_y, d / extent_y, (origin_y - start_y) / extent_y
        size, affine = load_int(job + _SIZE), (to + _AFFINE).to(tl.pointer_type(tl.float32))
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
