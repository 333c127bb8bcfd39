"""Pixels on the GPU, in Triton: what `kernels.py` does on the CPU.

Sums are made by tiles and added in a fixed order, without atomics: the same batch gives the same bits. Counts
that change from batch to batch are not compiled in (`do_not_specialize`).
"""

import triton
import triton.language as tl

from dali_bgaug.views import table
from dali_bgaug.views.gpu_colour import grey, is_coloured, jitter
from dali_bgaug.views.gpu_records import (
    ADDRESS_BYTES,
    CROP_BYTES,
    JOB_BYTES,
    load_address,
    load_float,
    load_int,
    offset_of,
)
from dali_bgaug.views.table import ADDRESS, CROP, JOB

ROWS, COLUMNS, WARPS = 4, 32, 2
"""Pixels of a program, a tile of an image, and its warps: the fastest of those tried (`notes.md`)."""

_GREY, _KEPT = tl.constexpr(table.GREY), tl.constexpr(table.KEPT)
_TIE = tl.constexpr(table.TIE)
_SIZE, _TURNS, _SIGMA, _SOLARIZED, _SCALE, _SHIFT = (
    offset_of(JOB, name) for name in ("size", "turns", "sigma", "solarized", "scale", "shift")
)
_BACKGROUND, _LEVEL, _BEFORE, _MASK_OF, _ONLY_VISIBLE, _COUPLED_TO, _DISTORTED, _BOX = (
    offset_of(JOB, name)
    for name in ("background", "grey", "before", "mask_of", "only_visible", "coupled_to", "distorted", "box")
)
_CROP_BOX, _AFFINE, _VISIBLE = (offset_of(CROP, name) for name in ("crop_box", "affine", "visible"))
_PIXELS, _BACKGROUND_PIXELS, _MASK, _OUT, _HEIGHT, _WIDTH, _FRAME_HEIGHT, _FRAME_WIDTH, _TILED = (
    offset_of(ADDRESS, name)
    for name in (
        "pixels",
        "background",
        "mask",
        "out",
        "height",
        "width",
        "frame_height",
        "frame_width",
        "tiled",
    )
)


@triton.jit
def _has_foreground(jobs, crops, job):
    """Whether a job gets its background, as far as its own mask says."""
    own = jobs + job * JOB_BYTES
    seen = load_int(crops + load_int(own + _MASK_OF).to(tl.int64) * CROP_BYTES + _VISIBLE)
    return (load_int(own + _BACKGROUND) != _KEPT) & ((load_int(own + _ONLY_VISIBLE) == 0) | (seen != 0))


@triton.jit
def _is_composited(jobs, crops, job):
    """Whether a job gets its background."""
    coupled = load_int(jobs + job * JOB_BYTES + _COUPLED_TO).to(tl.int64)
    its = _has_foreground(jobs, crops, tl.maximum(coupled, 0))
    return _has_foreground(jobs, crops, job) & ((coupled < 0) | its)


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
    """Number of programs that an image takes."""
    return ((size + ROWS - 1) // ROWS) * ((size + COLUMNS - 1) // COLUMNS)


@triton.jit
def _nearest(start, end, pixel, size, length):
    """Nearest neighbour: the places on a line of `length` that these of `size` pixels are taken from."""
    place = tl.floor(start + (pixel + 0.5) * (end - start) / size + _TIE)
    return tl.minimum(tl.maximum(place, 0.0), length - 1.0).to(tl.int32)


@triton.jit
def _foreground(jobs, crops, address, masked, rows, columns, size, SIDE: tl.constexpr):
    """The mask of the job `masked` at these pixels; address: of the job that looks at it."""
    job, crop_box = jobs + masked * JOB_BYTES, crops + masked * CROP_BYTES
    rows, columns = rows + 0 * columns, columns + 0 * rows  # one of each a pixel
    if load_int(job + _DISTORTED) != 0:
        affine, x, y = crop_box + _AFFINE, columns + 0.5, rows + 0.5
        columns = tl.floor(load_float(affine) * x + load_float(affine, 1) * y + load_float(affine, 2)).to(
            tl.int32
        )
        rows = tl.floor(load_float(affine, 3) * x + load_float(affine, 4) * y + load_float(affine, 5)).to(
            tl.int32
        )
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    tall = SIDE / load_int(address + _FRAME_HEIGHT).to(tl.float32)
    wide = SIDE / load_int(address + _FRAME_WIDTH).to(tl.float32)
    y = _nearest(
        load_float(crop_box + _CROP_BOX) * tall, load_float(crop_box + _CROP_BOX, 2) * tall, rows, size, SIDE
    )
    x = _nearest(
        load_float(crop_box + _CROP_BOX, 1) * wide,
        load_float(crop_box + _CROP_BOX, 3) * wide,
        columns,
        size,
        SIDE,
    )
    bits = load_address(address + _MASK).to(tl.pointer_type(tl.uint8))
    byte = tl.load(bits + y * (SIDE // 8) + (x >> 3), mask=inside, other=0).to(tl.int32)
    foreground = ((byte >> (7 - (x & 7))) & 1) != 0
    return inside & (foreground | (load_int(job + _BOX) != 0))


@triton.jit
def _shown(jobs, crops, address, composited, number, rows, columns, valid, SIDE: tl.constexpr):
    """Whether a background comes in at the end, and which pixels are the image's own; notes in `composited`
    whether one comes at all."""
    job = jobs + number * JOB_BYTES
    at_end = False
    foreground = valid
    if SIDE > 0:
        whether = _is_composited(jobs, crops, number)
        if tl.program_id(1) == 0:
            tl.store(composited + number, whether.to(tl.int8))
        at_end = whether & (load_int(job + _BEFORE) == 0)
        if at_end:
            masked, size = load_int(job + _MASK_OF).to(tl.int64), load_int(job + _SIZE)
            foreground = _foreground(jobs, crops, address, masked, rows, columns, size, SIDE)
    return at_end, foreground


@triton.jit
def _tap(start, step, reach, pixel, number, length):
    """Tap `number` of pixels: its place on the line, clamped to its ends, and its weight, a triangle's."""
    centre = start + (pixel + 0.5) * step - 0.5
    place = tl.floor(centre - reach) + 1 + number
    weight = tl.maximum(1 - tl.abs(place - centre) / reach, 0.0)
    return tl.minimum(tl.maximum(place, 0.0), length - 1.0).to(tl.int32), weight


@triton.jit
def _inside_tile(y, x, tiled):
    """Places in the photo of pixels of its tiled background (`tiles.py`); tiled: of the job's addresses."""
    inside = (y >= load_int(tiled)) & (y < load_int(tiled + 8))
    inside = inside & (x >= load_int(tiled + 4)) & (x < load_int(tiled + 12))
    high, wide = tl.maximum(load_int(tiled + 24), 1), tl.maximum(load_int(tiled + 28), 1)
    y, x = y + 0 * x, x + 0 * y  # one of each a pixel
    there_y, there_x = load_int(tiled + 16) + y % high, load_int(tiled + 20) + x % wide
    return tl.where(inside, there_y, y), tl.where(inside, there_x, x)


@triton.jit(do_not_specialize=["first", "parts"])
def resample(
    jobs, crops, addresses, offsets, canvas, sums, first, parts,
    TILED: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Crop, flip and resize with antialiasing, straight from the decoded photo; with `before` its
    background, too; then the jitter's steps before contrast.

    TILED: some jobs are of tiled backgrounds; canvas: float32, values of image j of the wave (`first` and
    on) from offsets[j] on; sums: float32 [wave, parts], the grey of each program's pixels."""
    wave = tl.program_id(0).to(tl.int64)
    number = wave + first
    job, address, crop_box = (
        jobs + number * JOB_BYTES,
        addresses + number * ADDRESS_BYTES,
        crops + number * CROP_BYTES + _CROP_BOX,
    )
    size = load_int(job + _SIZE)
    if tl.program_id(1) < _parts(size, ROWS, COLUMNS):
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        height, width = load_int(address + _HEIGHT), load_int(address + _WIDTH)
        tall = height.to(tl.float32) / load_int(address + _FRAME_HEIGHT).to(tl.float32)
        wide = width.to(tl.float32) / load_int(address + _FRAME_WIDTH).to(tl.float32)
        y0, x0 = load_float(crop_box) * tall, load_float(crop_box, 1) * wide
        step_y, step_x = (
            (load_float(crop_box, 2) * tall - y0) / size,
            (load_float(crop_box, 3) * wide - x0) / size,
        )
        reach_y, reach_x = tl.maximum(tl.abs(step_y), 1.0), tl.maximum(tl.abs(step_x), 1.0)
        pixels = load_address(address + _PIXELS).to(tl.pointer_type(tl.uint8))
        red = tl.zeros((ROWS, COLUMNS), tl.float32)
        green, blue, total = red, red, red
        for tap_y in range(tl.ceil(2 * reach_y).to(tl.int32) + 1):
            y, weight_y = _tap(y0, step_y, reach_y, rows, tap_y, height)
            for tap_x in range(tl.ceil(2 * reach_x).to(tl.int32) + 1):
                x, weight_x = _tap(x0, step_x, reach_x, columns, tap_x, width)
                weight = weight_y * weight_x
                used = valid & (weight > 0)
                source_y, source_x = y, x
                if TILED:
                    source_y, source_x = _inside_tile(y, x, address + _TILED)
                at = pixels + 3 * (source_y * width + source_x)
                red += weight * tl.load(at, mask=used, other=0).to(tl.float32)
                green += weight * tl.load(at + 1, mask=used, other=0).to(tl.float32)
                blue += weight * tl.load(at + 2, mask=used, other=0).to(tl.float32)
                total += weight
        red, green, blue = red / total, green / total, blue / total
        if SIDE > 0:
            if (load_int(job + _BEFORE) != 0) & _is_composited(jobs, crops, number):
                masked = load_int(job + _MASK_OF).to(tl.int64)
                inside = _foreground(jobs, crops, address, masked, rows, columns, size, SIDE)
                level = load_float(job + _LEVEL)
                other = load_address(address + _BACKGROUND_PIXELS).to(tl.pointer_type(tl.float32)) + 3 * (
                    rows * size + columns
                )
                there = valid & (load_int(job + _BACKGROUND) != _GREY)
                red = tl.where(inside, red, tl.load(other, mask=there, other=level))
                green = tl.where(inside, green, tl.load(other + 1, mask=there, other=level))
                blue = tl.where(inside, blue, tl.load(other + 2, mask=there, other=level))
        red, green, blue = jitter(job, red, green, blue, 0.0, False)
        to = canvas + tl.load(offsets + number) + 3 * (rows * size + columns)
        tl.store(to, red, mask=valid)
        tl.store(to + 1, green, mask=valid)
        tl.store(to + 2, blue, mask=valid)
        tl.store(sums + wave * parts + tl.program_id(1), tl.sum(tl.where(valid, grey(red, green, blue), 0.0)))


@triton.jit(do_not_specialize=["first", "parts"])
def colour(
    jobs, offsets, canvas, sums, first, parts, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Contrast, the jitter's steps after it and grayscale, in place. (A blur would do them anew for each
    tap.)"""
    wave = tl.program_id(0).to(tl.int64)
    job = jobs + (wave + first) * JOB_BYTES
    size = load_int(job + _SIZE)
    count = _parts(size, ROWS, COLUMNS)
    if (tl.program_id(1) < count) & is_coloured(job):
        part = tl.arange(0, PARTS)
        mean = tl.sum(tl.load(sums + wave * parts + part, mask=part < count, other=0.0)) / (size * size)
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        at = canvas + tl.load(offsets + wave + first) + 3 * (rows * size + columns)
        red, green = tl.load(at, mask=valid, other=0.0), tl.load(at + 1, mask=valid, other=0.0)
        red, green, blue = jitter(job, red, green, tl.load(at + 2, mask=valid, other=0.0), mean, True)
        tl.store(at, red, mask=valid)
        tl.store(at + 1, green, mask=valid)
        tl.store(at + 2, blue, mask=valid)


@triton.jit
def _mirror(place, size):
    """Places outside of 0 .. size - 1 mirrored at the outermost pixels, which are not repeated."""
    place = tl.abs(place) % (2 * size - 2)
    return tl.where(place < size, place, 2 * size - 2 - place)


@triton.jit
def _gaussian(step, sigma):
    return tl.exp(-0.5 * (step / sigma) * (step / sigma))


@triton.jit(do_not_specialize=["first"])
def blur_rows(jobs, offsets, canvas, blurred, first, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Gaussian blur along x, of jobs that are blurred: from `canvas` to `blurred`."""
    number = tl.program_id(0).to(tl.int64) + first
    job = jobs + number * JOB_BYTES
    size, sigma = load_int(job + _SIZE), load_float(job + _SIGMA)
    if (tl.program_id(1) < _parts(size, ROWS, COLUMNS)) & (sigma > 0):
        rows, columns, valid = _tile(size, ROWS, COLUMNS)
        start = tl.load(offsets + number)
        red = tl.zeros((ROWS, COLUMNS), tl.float32)
        green, blue, total = red, red, 0.0
        reach = tl.ceil(3 * sigma).to(tl.int32)
        for tap in range(2 * reach + 1):
            weight = _gaussian((tap - reach).to(tl.float32), sigma)
            at = canvas + start + 3 * (rows * size + _mirror(columns + tap - reach, size))
            red += weight * tl.load(at, mask=valid, other=0.0)
            green += weight * tl.load(at + 1, mask=valid, other=0.0)
            blue += weight * tl.load(at + 2, mask=valid, other=0.0)
            total += weight
        to = blurred + start + 3 * (rows * size + columns)
        tl.store(to, red / total, mask=valid)
        tl.store(to + 1, green / total, mask=valid)
        tl.store(to + 2, blue / total, mask=valid)


@triton.jit
def _finished(job, value, foreground, composited, other, valid, to, CHANNEL: tl.constexpr):
    """Solarize, composite, normalise and store one channel."""
    value = tl.where(load_int(job + _SOLARIZED) != 0, tl.minimum(value, 255.0 - value), value)
    there = valid & composited & (load_int(job + _BACKGROUND) != _GREY)
    behind = tl.load(other + CHANNEL, mask=there, other=0.0).to(tl.float32)
    behind = tl.where(load_int(job + _BACKGROUND) == _GREY, load_float(job + _LEVEL), behind)
    value = tl.where(foreground, value, behind)
    value = value * load_float(job + _SCALE, CHANNEL) + load_float(job + _SHIFT, CHANNEL)
    tl.store(to + CHANNEL, value.to(to.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["first"])
def finish(
    jobs, crops, addresses, offsets, canvas, blurred, composited, first,
    HALF: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Blur along y, of jobs that are blurred; solarize, background, normalise; composited: bool [J]."""
    number = tl.program_id(0).to(tl.int64) + first
    job, address = jobs + number * JOB_BYTES, addresses + number * ADDRESS_BYTES
    size, sigma = load_int(job + _SIZE), load_float(job + _SIGMA)
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
        own, foreground = _shown(jobs, crops, address, composited, number, rows, columns, valid, SIDE)
        pixel = 3 * (rows * size + columns)
        other = load_address(address + _BACKGROUND_PIXELS).to(tl.pointer_type(tl.float32)) + pixel
        if HALF:
            to = load_address(address + _OUT).to(tl.pointer_type(tl.float16)) + pixel
        else:
            to = load_address(address + _OUT).to(tl.pointer_type(tl.float32)) + pixel
        _finished(job, red, foreground, own, other, valid, to, 0)
        _finished(job, green, foreground, own, other, valid, to, 1)
        _finished(job, blue, foreground, own, other, valid, to, 2)


@triton.jit(do_not_specialize=["first"])
def copy(
    jobs, crops, addresses, composited, first,
    HALF: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A finished image, turned, or with another one where the mask says background."""
    number = tl.program_id(0).to(tl.int64) + first
    job, address = jobs + number * JOB_BYTES, addresses + number * ADDRESS_BYTES
    size, turns = load_int(job + _SIZE), load_int(job + _TURNS)
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
            front = load_address(address + _PIXELS).to(tl.pointer_type(tl.float16))
            behind = load_address(address + _BACKGROUND_PIXELS).to(tl.pointer_type(tl.float16))
            out = load_address(address + _OUT).to(tl.pointer_type(tl.float16))
        else:
            front = load_address(address + _PIXELS).to(tl.pointer_type(tl.float32))
            behind = load_address(address + _BACKGROUND_PIXELS).to(tl.pointer_type(tl.float32))
            out = load_address(address + _OUT).to(tl.pointer_type(tl.float32))
        _, foreground = _shown(jobs, crops, address, composited, number, rows, columns, valid, SIDE)
        pixel = 3 * (rows * size + columns)
        for channel in range(3):
            own = tl.load(front + 3 * (y * size + x) + channel, mask=valid & foreground, other=0.0)
            other = tl.load(behind + pixel + channel, mask=valid & (foreground == 0), other=0.0)
            tl.store(out + pixel + channel, tl.where(foreground, own, other), mask=valid)
