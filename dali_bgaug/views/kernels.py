"""The kernels of the CPU renderer: one compiled pass over a photo for each job of the table.

A job's picture is made by one thread, from the decoded photo to the finished view, while its pixels are in
the cache (`benchmarks/notes.md`: what that saves). `cpu.py` hands jobs to threads.
A job's picture is made by one thread, from the decoded photo to the finished view, while its pixels are in
the cache (`benchmarks/notes.md`: what that saves). `cpu.py` hands jobs to threads, and keeps the machine code
until one of the files `kernels*.py` or `table.py` changes.
"""

import math
from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from dali_bgaug.views.kernels_base import THREE, compiled, copy
from dali_bgaug.views.kernels_look import blur, colour, normalise, solarize
from dali_bgaug.views.kernels_resample import resample
from dali_bgaug.views.table import GREY, NOTHING, PICTURE, TIE


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    def generate(_0: Any, builder: Any, ONE: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@intrinsic
def _fetch_add(_: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address, one thread at a time; what it was before."""

    def generate(_0: Any, builder: Any, ONE: Any, values: Any) -> Any:
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
    resample(out, photo, window, place.tiled)
    if put and job.before:
        _put_behind(out, job, place, job, chosen, mask_size)
    if job.jittered or job.grayscale:
        colour(out.reshape(size, -1), job)
    if job.sigma > 0:
        blur(out.reshape(size, -1), job.sigma)
    if job.solarized:
        solarize(out.reshape(-1))
    normalise(out.reshape(size, -1), job.scale, job.shift)


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
                for channel in range(THREE):
                    values[THREE * pixel + channel] = level[channel]
        return
    other = carray(_pointer(place.behind), 3 * size * size, np.float32)
    end = 0
    while end < len(mask):  # run by run: masks are blobs
        begin, inside = end, mask[end]
        while end < len(mask) and mask[end] == inside:
            end += 1
        if not inside:
            copy(values[3 * begin : 3 * end], other[3 * begin : 3 * end])


@compiled
def _turn(out: np.ndarray, picture: np.ndarray, turns: int) -> None:
    """A picture turned counter-clockwise by so many quarters."""
    if turns == 0:
        copy(out.reshape(-1), picture.reshape(-1))
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
