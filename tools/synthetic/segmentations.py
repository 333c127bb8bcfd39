"""Masks as COCO's files store them: polygons, or run lengths."""

import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.measure import approximate_polygon, find_contours


def outline(mask: np.ndarray) -> list[list[float]]:
    """The outline of a mask, bool [H, W], as polygons x, y, x, y … between pixels: a pixel is inside if its
    middle is.

    A polygon has no hole: a mask that has one is cut in two across it, as often as it takes.
    """
    holes = np.flatnonzero((binary_fill_holes(mask) & ~mask).any(1))
    if len(holes):
        cut = holes[len(holes) // 2]
        rows = np.arange(len(mask))[:, None]
        return outline(mask & (rows < cut)) + outline(mask & (rows >= cut))
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    # Of the padded mask, and from the first pixel's middle on: half a pixel less.
    return [(approximate_polygon(ring, 0)[:-1, ::-1] - 0.5).ravel().tolist() for ring in contours]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of 0, of 1, of 0 … in a mask, bool [H, W], down the columns."""
    flat = mask.T.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff([0, *starts, flat.size]).tolist()
