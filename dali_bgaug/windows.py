"""How a crop window is chosen: torchvision's RandomResizedCrop, drawn again until it holds enough foreground.

Per view up to DRAWS windows are drawn; the first that fits into the photo and covers at least `fg_min` of the
foreground's area is taken, else torchvision's central fallback. All draws of all views of a batch are made
at once and the first accepted one is picked: the first accepted of DRAWS independent draws has exactly the
distribution of the sequential loop.

Windows lie on the photo's pixel grid, rounded as torchvision rounds (`RandomResizedCrop.get_params`). The
foreground in a window is read from the mask's grid of 8x8 cells, a cell cut by the window's edge counting by
the part inside; the overlap of a box with a grid is separable: sum_ij wy[i] M[i, j] wx[j]. Against the mask
at full resolution the covered fraction is off by 1.5 % of the foreground at most for an object of 12 % of the
photo, by 10 % at most for one of 1 %, over 20 000 windows each (`tests/dali_bgaug/test_windows.py`).

NumPy, one call a batch: for 256 photos and two views 3 to 5 ms of one core. The same law written as DALI
operators is a chain of 120, each of which has to be dispatched; on an H100 that dispatching, not pixels, set
the pace of the whole loader (`benchmarks/notes.md`).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from dali_bgaug.config import Options, Range

DRAWS = 10
CELL = 8
"""Side of a coverage cell in mask pixels: a byte of packed mask is one row of one cell."""

UNIFORMS = 4 * DRAWS + 1
"""Uniform numbers a window takes: area, ratio, y and x of every draw, and the flip."""


class CropOptions(Options):
    """One view's crop."""

    size: int = Field(default=224, ge=8)
    """Side of the view in pixels."""
    scale: Range = (0.2, 1.0)
    """Range of the window's area as a fraction of the photo's."""
    ratio: Range = (3 / 4, 4 / 3)
    """Range of width / height."""
    fg_min: float = Field(default=0.0, ge=0, le=1)
    """Least fraction of the foreground's area inside the window; 0 accepts any window."""
    flip_p: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""

    @model_validator(mode="after")
    def _check(self) -> "CropOptions":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale={list(self.scale)} must be two increasing numbers in (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio={list(self.ratio)} must be two increasing positive numbers")
        return self


def coverage(packed: np.ndarray, mask_size: int) -> np.ndarray:
    """Foreground pixels in each cell: bit-packed masks uint8 [N, S*S/8] -> float32 [N, S/8, S/8], 0..64."""
    grid = mask_size // CELL
    # A cell's row has 0..8 bits, so bytes never overflow: eight of them are added as one 64-bit number.
    lanes = np.bitwise_count(packed).view(np.uint64).reshape(-1, grid, CELL, grid // 8)
    return lanes.sum(axis=2, dtype=np.uint64).view(np.uint8).reshape(-1, grid, grid).astype(np.float32)


def choose_windows(
    uniforms: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    crops: Sequence[CropOptions],
    cells: np.ndarray | None = None,
) -> np.ndarray:
    """Choose a window for every view of every photo.

    Args:
        uniforms: numbers from U[0, 1), float32 [N, views, UNIFORMS].
        height, width: of the photos in pixels, [N].
        crops: one per view.
        cells: foreground per cell, float32 [N, grid, grid]; None accepts any window.

    Returns:
        float32 [N, views, 4]: y0, x0, y1, x1 as fractions of the photo; x0 > x1 in a flipped view.
    """
    count, views, _ = uniforms.shape
    area, ratio, y, x = np.moveaxis(uniforms[..., :-1].reshape(count, views, 4, DRAWS), 2, 0)
    height = np.asarray(height, np.float32)[:, None, None]
    width = np.asarray(width, np.float32)[:, None, None]
    scale, log_ratio = _ranges([c.scale for c in crops]), np.log(_ranges([c.ratio for c in crops]))

    pixels = (scale[0] + (scale[1] - scale[0]) * area) * (height * width)
    ratio = np.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * ratio)
    w = np.maximum(np.floor(np.sqrt(pixels * ratio) + 0.5), 1)
    h = np.maximum(np.floor(np.sqrt(pixels / ratio) + 0.5), 1)
    # Whole-pixel offsets 0 .. H - h; the minimum catches a float32 product that rounds up to its bound.
    y0 = np.minimum(np.floor(y * (height - h + 1)), height - h)
    x0 = np.minimum(np.floor(x * (width - w + 1)), width - w)
    box = np.stack([y0, x0, y0 + h, x0 + w], axis=-1) / np.stack([height, width, height, width], axis=-1)

    accepted = (h <= height) & (w <= width)
    if cells is not None:
        _reject(accepted, box, np.array([crop.fg_min for crop in crops], np.float32), cells)
    first = accepted.argmax(axis=-1)[..., None, None]
    chosen = np.take_along_axis(box, first, axis=2)[:, :, 0]
    central = _central(height, width, crops)
    chosen = np.where(accepted.any(axis=-1)[..., None], chosen, central)
    flip = uniforms[..., -1:] < np.array([crop.flip_p for crop in crops], np.float32)[:, None]
    return np.where(flip, chosen[..., [0, 3, 2, 1]], chosen).astype(np.float32)


def _reject(accepted: np.ndarray, box: np.ndarray, fg_min: np.ndarray, cells: np.ndarray) -> None:
    """Strike out, in place, accepted windows with too little foreground: bool [N, views, draws].

    Only the first accepted window matters, and most are good: the foreground is counted in first windows
    only, and again for the few photos whose window was struck out.
    """
    photo, view = np.nonzero(accepted.any(axis=-1) & (fg_min > 0))
    while len(photo):
        draw = accepted[photo, view].argmax(axis=-1)
        # The margin is for float32 sums: a window of the whole photo must satisfy fg_min = 1.
        good = foreground_share(box[photo, view, draw], cells[photo]) >= fg_min[view] * (1 - 1e-5)
        accepted[photo[~good], view[~good], draw[~good]] = False
        left = ~good & accepted[photo, view].any(axis=-1)
        photo, view = photo[left], view[left]


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


def has_foreground(windows: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Whether any foreground lies in each window: bool [N, views].

    windows: [N, views, 4], flipped or not; cells: [N, grid, grid].
    """
    count, views, _ = windows.shape
    box = np.stack(
        [windows[..., 0], windows[..., [1, 3]].min(-1), windows[..., 2], windows[..., [1, 3]].max(-1)],
        axis=-1,
    )
    share = foreground_share(box.reshape(-1, 4), np.repeat(cells, views, axis=0)).reshape(count, views)
    return (share > 0) & (cells.any(axis=(1, 2)))[:, None]


def _ranges(pairs: list[tuple[float, float]]) -> np.ndarray:
    """[2, views, 1]: low and high of each view."""
    return np.array(pairs, np.float32).T[..., None]


def _central(height: np.ndarray, width: np.ndarray, crops: Sequence[CropOptions]) -> np.ndarray:
    """torchvision's fallback: the largest central window of an allowed ratio, [N, views, 4]."""
    low, high = _ranges([crop.ratio for crop in crops])
    w = np.minimum(np.floor(height * high + 0.5), width)
    h = np.minimum(np.floor(width / low + 0.5), height)
    y0, x0 = (height - h) // 2, (width - w) // 2
    sides = np.broadcast_arrays(y0 / height, x0 / width, (y0 + h) / height, (x0 + w) / width)
    return np.stack(sides, axis=-1)[:, :, 0]
