"""Tiled backgrounds: a photo whose foreground's box is filled by repeating a strip of its background.

As ImageNet-9's Only-BG-T does (Xiao et al., "Noise or Signal", 2020). Outside the box nothing changes, so
eight numbers and the photo say all: nothing need be stored, read or decoded besides.

    y0, x0, y1, x1          the box in pixels, half-open
    top, left, high, wide   the strip: the photo's full height or full width

Pixel (y, x) of the box is the photo's pixel (top + y mod high, left + x mod wide): a grid anchored at the
photo's corner, unscaled and unmirrored.
"""

import numpy as np

MIN_STRIP_PIXELS, MIN_STRIP_FRACTION = 8, 0.05
DILATION = 3
"""Pixels around the foreground: a mask's rim is never exact, and a leaking rim repeats in every tile."""
NUMBERS = 8


def dilate(box: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes grown on every side, within their photos.

    box: xmin, ymin, xmax, ymax, int [..., 4]; sizes: width, height, int [..., 2].
    """
    low = np.maximum(box[..., :2] - DILATION, 0)
    return np.concatenate([low, np.minimum(box[..., 2:] + DILATION, sizes)], axis=-1)


def tile_geometry(box: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Box and strip of tiled backgrounds: int32 [N, 8]; zeros where no strip is large enough.

    The side strip if its area is larger, else the top or bottom one; of two sides the wider (left only if it
    is wider). A strip thinner than 8 pixels or 5 % of its side is not used.

    Args:
        box: the foreground's, xmin, ymin, xmax, ymax, int [N, 4].
        sizes: the photos' width and height, int [N, 2].
    """
    x0, y0, x1, y1 = dilate(box, sizes).astype(np.int64).T
    width, height = sizes.astype(np.int64).T
    left, right, top, bottom = x0, width - x1, y0, height - y1
    across, along = np.maximum(left, right), np.maximum(top, bottom)
    side_fits = across >= np.maximum(MIN_STRIP_PIXELS, MIN_STRIP_FRACTION * width)
    flat_fits = along >= np.maximum(MIN_STRIP_PIXELS, MIN_STRIP_FRACTION * height)
    side = side_fits & ((across * height > along * width) | ~flat_fits)
    strip_y = np.where(side | (top > bottom), 0, y1)
    strip_x = np.where(side & (left <= right), x1, 0)
    high, wide = np.where(side, height, along), np.where(side, across, width)
    geometry = np.stack([y0, x0, y1, x1, strip_y, strip_x, high, wide], axis=-1).astype(np.int32)
    return np.where((side_fits | flat_fits)[:, None], geometry, 0).astype(np.int32)


def fits(geometry: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether boxes and strips lie in their photos: bool [N].

    geometry: int32 [N, 8]; sizes: height, width, int [N, 2].
    """
    box, last, strip, extent = geometry.reshape(-1, 4, 2).astype(np.int64).transpose(1, 0, 2)
    inside = (box >= 0) & (last >= box) & (last <= sizes) & (strip >= 0) & (strip + extent <= sizes)
    filled = (extent > 0).all(axis=1) | (last == box).any(axis=1)
    return inside.all(axis=1) & filled


def fill(photo: np.ndarray, geometry: np.ndarray) -> np.ndarray:
    """The tiled background of uint8 [H, W, 3]; geometry: int32 [8]."""
    y0, x0, y1, x1, top, left, high, wide = geometry.tolist()
    result = photo.copy()
    if high and wide:
        rows, columns = top + np.arange(y0, y1) % high, left + np.arange(x0, x1) % wide
        result[y0:y1, x0:x1] = photo[rows[:, None], columns]
    return result


def rescale(geometry: np.ndarray, before: tuple[int, int], now: tuple[int, int]) -> np.ndarray:
    """The geometry int32 [8] of a photo whose size (width, height) changed: the box covers what it covered,
    the strip has nothing of it; zeros where no strip is left."""
    y0, x0, y1, x1, top, left, high, wide = geometry.tolist()
    (width, height), (new_width, new_height) = before, now
    if not (high and wide):
        return geometry
    low = y0 * new_height // height, x0 * new_width // width
    box = *low, -(-y1 * new_height // height), -(-x1 * new_width // width)
    if high == height:  # a side strip
        strip = 0, box[3] if left else 0, new_height, new_width - box[3] if left else box[1]
    else:
        strip = box[2] if top else 0, 0, new_height - box[2] if top else box[0], new_width
    return np.array([*box, *strip] if min(strip[2:]) else [0] * NUMBERS, np.int32)
