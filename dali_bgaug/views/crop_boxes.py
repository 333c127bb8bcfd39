"""Crop boxes: torchvision's RandomResizedCrop, drawn again until it holds enough foreground.

Per view DRAWS crop boxes are drawn; the first that fits into the photo and covers at least `fg_min` of the
foreground's area is taken, else torchvision's central fallback. All draws of all jobs of a batch are made
at once and the first accepted one is picked: the first accepted of DRAWS independent draws has exactly the
distribution of the sequential loop.

Crop boxes lie on the photo's pixel grid, rounded as torchvision rounds (`RandomResizedCrop.get_params`). The
foreground in a box is read from the mask's grid of 8x8 cells, a cell cut by the box's edge counting by the
part inside; the overlap of a box with a grid is separable: sum_ij wy[i] M[i, j] wx[j]. Against the mask
at full resolution the covered fraction is off by 1.5 % of the foreground at most for an object of 12 % of the
photo, by 10 % at most for one of 1 %, over 20 000 boxes each (`tests/dali_bgaug/views/test_crop_boxes.py`).

NumPy, one call a batch; on a GPU `gpu.choose_crop_boxes` follows the same law on the device.
"""

import math

import numpy as np

from dali_bgaug.views import distortion
from dali_bgaug.views.table import CENTRAL, CROP, KEPT, RANDOM

CELL = 8
"""Side of a coverage cell in mask pixels: a byte of packed mask is one row of one cell."""


def choose(jobs: np.ndarray, sizes: np.ndarray, packed: np.ndarray | None) -> np.ndarray:
    """The crop box of every job, and what depends on it.

    Args:
        jobs: table.JOB [J].
        sizes: height and width of the batch's photos in pixels, int [N, 2].
        packed: their bit-packed masks, uint8 [N, S * S / 8]; None if no job looks at a mask.

    Returns:
        table.CROP [J].
    """
    crops = np.zeros(len(jobs), CROP)
    height, width = sizes[jobs["frame"]].T.astype(np.float32)
    crop_box = crops["crop_box"]
    crop_box[:, 2], crop_box[:, 3] = height, width
    if (central := jobs["crop"] == CENTRAL).any():
        crop_box[central] = central_crop_boxes(
            sizes[jobs["frame"][central]], jobs["resize"][central], jobs["size"][central]
        )
    cells = None if packed is None else coverage(packed)
    if (random := jobs["crop"] == RANDOM).any():
        crop_box[random] = choose_crop_boxes(jobs[random], height[random], width[random], cells)
    if cells is not None and (jobs["background"] != KEPT).any():
        share = foreground_share(crop_box / np.stack([height, width] * 2, axis=-1), cells[jobs["frame"]])
        crops["visible"] = (share > 0) & np.logical_or.reduce(cells, axis=(1, 2))[jobs["frame"]]
    if packed is not None and (distorted := jobs["distorted"] != 0).any():
        boxes = distortion.foreground_box(packed)[jobs["frame"][distorted]]
        boxes *= sizes[jobs["frame"][distorted]][:, [0, 1, 0, 1]]
        flipped = np.where(
            jobs["flip"][distorted, None], crop_box[distorted][:, [0, 3, 2, 1]], crop_box[distorted]
        )
        crops["affine"][distorted] = distortion.affine(jobs[distorted], flipped, boxes)
    crop_box[:] = np.where(jobs["flip"][:, None], crop_box[:, [0, 3, 2, 1]], crop_box)
    return crops


def coverage(packed: np.ndarray) -> np.ndarray:
    """Foreground pixels in each cell: bit-packed masks uint8 [N, S*S/8] -> float32 [N, S/8, S/8], 0..64."""
    grid = math.isqrt(8 * packed.shape[1]) // CELL
    # A cell's row has 0..8 bits, so bytes never overflow: eight of them are added as one 64-bit number.
    lanes = np.bitwise_count(packed).view(np.uint64).reshape(-1, grid, CELL, grid // 8)
    return lanes.sum(axis=2, dtype=np.uint64).view(np.uint8).reshape(-1, grid, grid).astype(np.float32)


def choose_crop_boxes(
    jobs: np.ndarray, height: np.ndarray, width: np.ndarray, cells: np.ndarray | None = None
) -> np.ndarray:
    """A random crop for every job, not yet flipped.

    Args:
        jobs: table.JOB [J], of which `draws`, `area`, `log_ratio`, `fg_min` and `frame` are looked at.
        height, width: of their frames in pixels, float32 [J].
        cells: foreground per cell, float32 [N, grid, grid], of each frame; None accepts any crop box.

    Returns:
        float32 [J, 4]: y0, x0, y1, x1 in pixels.
    """
    height, width = height[:, None], width[:, None]
    area, ratio, y, x = np.moveaxis(jobs["draws"], 1, 0)
    (low, high), (log_low, log_high) = jobs["area"].T[..., None], jobs["log_ratio"].T[..., None]
    pixels = (low + (high - low) * area) * (height * width)
    ratio = np.exp(log_low + (log_high - log_low) * ratio)
    w = np.maximum(np.floor(np.sqrt(pixels * ratio) + 0.5), 1)
    h = np.maximum(np.floor(np.sqrt(pixels / ratio) + 0.5), 1)
    # Whole-pixel offsets 0 .. H - h; the minimum catches a float32 product that rounds up to its bound.
    y0 = np.minimum(np.floor(y * (height - h + 1)), height - h)
    x0 = np.minimum(np.floor(x * (width - w + 1)), width - w)
    box = np.stack([y0, x0, y0 + h, x0 + w], axis=-1)

    accepted = (h <= height) & (w <= width)
    if cells is not None:
        scale = np.stack([height, width, height, width], axis=-1)
        _reject(accepted, box / scale, jobs["fg_min"], cells, jobs["frame"])
    first = accepted.argmax(axis=-1)[:, None, None]
    chosen = np.take_along_axis(box, first, axis=1)[:, 0]
    # torchvision's fallback: the largest central crop box of an allowed ratio.
    w = np.minimum(np.floor(height * np.exp(log_high) + 0.5), width)
    h = np.minimum(np.floor(width / np.exp(log_low) + 0.5), height)
    y0, x0 = (height - h) // 2, (width - w) // 2
    fallback = np.concatenate([y0, x0, y0 + h, x0 + w], axis=1)
    return np.where(accepted.any(axis=-1)[:, None], chosen, fallback)


def central_crop_boxes(sizes: np.ndarray, resize: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Resize and CenterCrop of torchvision as crop boxes: float32 [J, 4], y0, x0, y1, x1 in pixels.

    sizes: height and width, int [J, 2]; resize: short side before the crop, or 0 for that of the photo;
    side: of the crop, int [J].
    """
    short = sizes.min(axis=1, keepdims=True)
    resized = np.where(resize[:, None], resize[:, None], short) * sizes // short
    twice = resized - side[:, None]
    start = twice // 2 + (twice // 2 & twice & 1)  # half of it, rounded half to even
    return np.concatenate([start, start + side[:, None]], axis=1) * np.tile(sizes / resized, 2)


def _reject(
    accepted: np.ndarray, box: np.ndarray, fg_min: np.ndarray, cells: np.ndarray, frame: np.ndarray
) -> None:
    """Strike out, in place, accepted crop boxes with too little foreground: bool [J, draws].

    Only the first accepted crop box matters, and most are good: the foreground is counted in first crop boxes
    only, and again for the few jobs whose crop box was struck out.
    """
    job = np.flatnonzero(accepted.any(axis=-1) & (fg_min > 0))
    while len(job):
        draw = accepted[job].argmax(axis=-1)
        # The margin is for float32 sums: a crop box of the whole photo must satisfy fg_min = 1.
        good = foreground_share(box[job, draw], cells[frame[job]]) >= fg_min[job] * (1 - 1e-5)
        accepted[job[~good], draw[~good]] = False
        job = job[~good & accepted[job].any(axis=-1)]


def foreground_share(box: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The fraction of the foreground inside each box: [N]; 1 where a photo has no foreground.

    box: [N, 4] as fractions of the photo; cells: [N, grid, grid].
    """
    grid = cells.shape[-1]
    edges = np.arange(grid, dtype=np.float32)
    y0, x0, y1, x1 = box.T[..., None].astype(np.float32) * grid

    def overlap(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The part of each cell inside each interval: [N, grid]."""
        return np.maximum(np.minimum(end, edges + 1) - np.maximum(start, edges), 0)

    columns = (overlap(y0, y1)[:, None] @ cells)[:, 0]
    inside = (columns * overlap(x0, x1)).sum(axis=-1)
    total = cells.sum(axis=(1, 2))
    return np.where(total > 0, inside / np.maximum(total, 1), 1)
