"""The kernels of the CPU renderer: one compiled pass over a photo for each job of the table.

A job's image is made by one thread, from the decoded photo to the finished view, while its pixels are in
the cache (`benchmarks/notes.md`: what that saves). `cpu.py` hands jobs to threads, and keeps the machine code
until one of the files `kernels*.py` or `table.py` changes.
"""

import math
from typing import Any

import numpy as np
from numba import carray

from dali_bgaug.views.kernels_base import LANES, THREE, compiled, copy, fetch_add, pointer
from dali_bgaug.views.kernels_photometric import blur, blur_space, colour, normalise, solarize
from dali_bgaug.views.kernels_resample import resample
from dali_bgaug.views.table import GREY, IMAGE, KEPT, TIE

_EIGHT = np.uint64(0x0101010101010101)
"""Eight pixels of a mask that are foreground."""


@compiled
def render_jobs(
    jobs: np.ndarray,
    crops: np.ndarray,
    addresses: np.ndarray,
    composited: np.ndarray,
    mask_size: int,
    stop: int,
    step: int,
    counter: int,
) -> None:
    """Make the images of jobs up to `stop`, so many (`step`) at a time, shared with other threads.

    jobs, crops, addresses: table.JOB, table.CROP, table.ADDRESS, [J]; composited: bool [J], written;
    counter: address of an int64, the first job that no thread has taken.
    """
    side = jobs["size"].max()  # an image in the cache, and space to blur it
    work, spare = (
        np.empty(3 * side**2 + LANES, np.float32),
        np.empty(blur_space(side, jobs["sigma"].max()), np.float32),
    )
    while True:
        first = fetch_add(counter, step)
        if first >= stop:
            return
        for number in range(first, min(first + step, stop)):
            if not addresses[number].is_copied:
                _render_job(jobs, crops, addresses, composited, mask_size, number, work, spare)


@compiled
def _render_job(
    jobs: np.ndarray,
    crops: np.ndarray,
    addresses: np.ndarray,
    composited: np.ndarray,
    mask_size: int,
    number: int,
    work: np.ndarray,
    spare: np.ndarray,
) -> None:
    """Make one image, and those that are copies of it."""
    job, address = jobs[number], addresses[number]
    size, count = job.size, 3 * job.size**2
    composited[number] = _is_composited(jobs, crops, number) and (
        job.coupled_to < 0 or _is_composited(jobs, crops, job.coupled_to)
    )
    if job.source == IMAGE:
        copy(work, 0, carray(pointer(address.pixels), count, np.float32), 0, count)
    else:
        photo = carray(pointer(address.pixels), (address.height, address.width, 3), np.uint8)
        _make_view(work, spare, photo, job, address, crops[number], composited[number], mask_size)
    if composited[number] and not job.before:
        _composite(work, job, address, jobs[job.mask_of], crops[job.mask_of], mask_size)
    normalise(carray(pointer(address.out), count, np.float32), work[:count], job.scale, job.shift)
    number = address.copied_to
    while number >= 0:
        out = carray(pointer(addresses[number].out), count, np.float32)
        if jobs[number].turns:
            _turn(out, work, size, jobs[number].turns, job.scale, job.shift)
        else:
            normalise(out, work[:count], job.scale, job.shift)
        number = addresses[number].copied_to


@compiled
def _is_composited(jobs: np.ndarray, crops: np.ndarray, number: int) -> bool:
    """Whether a job gets its background, as far as its own mask says."""
    job = jobs[number]
    return job.background != KEPT and (job.only_visible == 0 or crops[job.mask_of].visible != 0)


@compiled
def _make_view(
    out: np.ndarray,
    spare: np.ndarray,
    photo: np.ndarray,
    job: Any,
    address: Any,
    crop: Any,
    composited: bool,
    mask_size: int,
) -> None:
    """Crop and flip, jitter, grayscale, blur, solarize.

    out: float32, a line of v * v pixels and LANES values more; photo: uint8 [H, W, 3].
    """
    crop_box, size = np.empty(4, np.float64), job.size
    for edge in range(0, 4, 2):
        crop_box[edge] = crop.crop_box[edge] * (address.height / address.frame_height)
        crop_box[edge + 1] = crop.crop_box[edge + 1] * (address.width / address.frame_width)
    resample(out, size, photo, crop_box, address.tiled)
    if composited and job.before:
        _composite(out, job, address, job, crop, mask_size)
    values = out[: 3 * size * size]
    if job.jittered or job.grayscale:
        colour(values.reshape(size, -1), job)
    if job.sigma > 0:
        blur(out, size, job.sigma, spare)
    if job.solarized:
        solarize(values)


@compiled
def _composite(values: np.ndarray, job: Any, address: Any, masked: Any, crop: Any, mask_size: int) -> None:
    """Replace an image's background; masked, crop: of the job whose mask it is."""
    mask = _mask(job.size, masked, address, crop, mask_size)
    if job.background == GREY:
        for pixel in range(np.uintp(len(mask))):
            if not mask[pixel]:
                for channel in range(THREE):
                    values[THREE * pixel + channel] = job.grey
        return
    other = carray(pointer(address.background), 3 * len(mask), np.float32)
    end, words = 0, mask[: len(mask) // 8 * 8].view(np.uint64)
    while end < len(mask):  # run by run: masks are blobs
        begin, inside = end, mask[end]
        eight = _EIGHT if inside else np.uint64(0)
        while end < len(mask) and mask[end] == inside:
            end += 8 if end % 8 == 0 and end // 8 < len(words) and words[end // 8] == eight else 1
        if not inside:
            copy(values, 3 * begin, other, 3 * begin, 3 * (end - begin))


@compiled
def _turn(
    out: np.ndarray, values: np.ndarray, size: int, turns: int, scale: np.ndarray, shift: np.ndarray
) -> None:
    """An image turned counter-clockwise by so many quarters, and normalised."""
    last = size - 1
    for y in range(size):
        for x in range(size):
            row, column = (
                (x, last - y) if turns == 1 else (last - y, last - x) if turns == 2 else (last - x, y)
            )
            for channel in range(3):
                value = values[3 * (size * row + column) + channel]
                out[3 * (size * y + x) + channel] = value * scale[channel] + shift[channel]


@compiled
def _mask(size: int, job: Any, address: Any, crop: Any, side: int) -> np.ndarray:
    """A view's mask, uint8 [size * size], 0 or 1: cropped, flipped, resized like the view, then distorted."""
    packed = carray(pointer(address.mask), side * side // 8, np.uint8)
    mask = np.ones(size * size, np.uint8)
    if not job.box:
        tall, wide = side / address.frame_height, side / address.frame_width
        y0, x0, y1, x1 = crop.crop_box[0], crop.crop_box[1], crop.crop_box[2], crop.crop_box[3]
        byte, bit = np.empty(size, np.uintp), np.empty(size, np.uint8)
        for x in range(size):
            column = _nearest(x0 * wide, x1 * wide, x, size, side)
            byte[x], bit[x] = column >> 3, 0x80 >> (column & 7)
        taken = -1
        for y in range(size):
            number = _nearest(y0 * tall, y1 * tall, y, size, side)
            if number == taken:  # a mask is mostly smaller than its view
                copy(mask, size * y, mask, size * (y - 1), size)
                continue
            taken, row, to = number, np.uintp(number * (side // 8)), np.uintp(size * y)
            for x in range(np.uintp(size)):
                mask[to + x] = (packed[row + byte[x]] & bit[x]) != 0
    if not job.distorted:
        return mask
    affine = crop.affine
    distorted = np.zeros(size * size, np.uint8)
    for y in range(size):
        for x in range(size):
            column = math.floor(affine[0, 0] * (x + 0.5) + affine[0, 1] * (y + 0.5) + affine[0, 2])
            row = math.floor(affine[1, 0] * (x + 0.5) + affine[1, 1] * (y + 0.5) + affine[1, 2])
            if 0 <= row < size and 0 <= column < size:
                distorted[size * y + x] = mask[size * row + column]
    return distorted


@compiled
def _nearest(start: float, end: float, pixel: int, size: int, length: int) -> int:
    """Nearest neighbour: the place on a line of `length` that this of `size` pixels is taken from."""
    return min(max(math.floor(start + (pixel + 0.5) * (end - start) / size + TIE), 0), length - 1)
