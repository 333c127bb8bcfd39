"""The mask of a view, from bit-packed rows."""

import numpy as np
from nvidia.dali import fn, math, types
from nvidia.dali.data_node import DataNode
from pydantic import Field

from dali_bgaug.config import Options
from dali_bgaug.graph.context import constant
from dali_bgaug.graph.crop import Window


class DistortionOptions(Options):
    """Distortions of a view's mask, an ablation of the paper: drawn anew at every use, for each view by
    itself.

    They act on the cropped mask, about the view's centre, nearest neighbour, filled with background; the
    rejection sampling of windows sees the undistorted mask. All off by default.
    """

    rotate: float = Field(default=0.0, ge=0, le=180)
    """Degrees: an angle drawn from [-x, x]."""
    shear: float = Field(default=0.0, ge=0, lt=45)
    """Degrees: two angles, along x and along y, drawn from [-x, x]."""
    translate: float = Field(default=0.0, ge=0)
    """A shift drawn from [-x, x] times the width and the height of the foreground's box."""
    flip_p: float = Field(default=0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    box: bool = False
    """The foreground's bounding box instead of the foreground."""

    @property
    def any(self) -> bool:
        """Whether masks are distorted at all."""
        return self.box or max(self.rotate, self.shear, self.translate, self.flip_p) > 0


def unpack(packed: DataNode, size: int, device: str) -> DataNode:
    """Bit-packed mask -> uint8 [S, S, 1] of 0 and 1, layout HWC."""
    bits = constant(1 << np.arange(7, -1, -1), np.uint8, device)
    rows = fn.reshape(packed, shape=[size, size // 8, 1])
    mask = math.min(rows & bits, constant(1, np.uint8, device))
    return fn.reshape(mask, shape=[size, size, 1], layout="HWC")


def view_mask(packed: DataNode, size: int, window: Window, view_size: int, device: str) -> DataNode:
    """The mask cropped, flipped and resized as the view of `window`: uint8 [v, v, 1], 1 = foreground.

    Nearest neighbour, as is customary for label maps: smoothing before the threshold moves no edge by more
    than a pixel and costs four times as much on the CPU.
    """
    return fn.resize(
        unpack(packed, size, device),
        size=[view_size, view_size],
        roi_start=window.start,
        roi_end=window.end,
        roi_relative=True,
        interp_type=types.INTERP_NN,
    )


def foreground_box(packed: np.ndarray, size: int) -> np.ndarray:
    """Bounding boxes of bit-packed masks, uint8 [N, S*S/8]: y0, x0, y1, x1 as fractions, float [N, 4].

    Half-open; all zero where there is no foreground.
    """
    rows = packed.reshape(len(packed), size, size // 8)
    seen = (rows.any(axis=2), np.unpackbits(np.bitwise_or.reduce(rows, axis=1), axis=1).astype(bool))
    first = [some.argmax(axis=1) for some in seen]
    end = [(size - some[:, ::-1].argmax(axis=1)) * some.any(axis=1) for some in seen]
    return np.stack([*first, *end], axis=1) / size


def draw_distortions(
    options: DistortionOptions, windows: np.ndarray, boxes: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Where each pixel of a distorted mask comes from: affine maps for `distort`, float32 [N, 2, 3].

    Args:
        options: what is drawn.
        windows: of the views, [N, 4] as fractions of the photo, x0 > x1 in a flipped one.
        boxes: of the foreground, [N, 4] as fractions of the photo.
        size: side of the views in pixels.
        rng: random numbers.
    """
    count = len(windows)
    y0, x0, y1, x1 = windows.T[..., None]
    edges = [(boxes[:, [1, 3]] - x0) / (x1 - x0), (boxes[:, [0, 2]] - y0) / (y1 - y0)]
    edges = np.clip(np.sort(edges, axis=-1), 0, 1)  # [x and y, N, start and end], inside the view
    start, extent = edges[..., 0].T, np.maximum(edges[..., 1] - edges[..., 0], 1e-6).T

    def spread(limit: float, *shape: int) -> np.ndarray:
        return rng.uniform(-limit, limit, (count, *shape))

    turn, lean = np.deg2rad(spread(options.rotate)), np.tan(np.deg2rad(spread(options.shear, 2)))
    mirror = np.where(rng.random(count) < options.flip_p, -1.0, 1.0)
    shift = spread(options.translate, 2) * extent
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
    shear = np.tile(np.eye(2), (count, 1, 1))
    shear[:, 0, 1], shear[:, 1, 0] = lean.T
    linear = rotation @ shear
    linear[..., 0] *= mirror[:, None]
    # A point p of the mask goes to linear @ (p - centre) + centre + shift; pixels are looked up backwards.
    backward = np.linalg.inv(linear)
    origin = 0.5 - (backward @ (0.5 + shift)[..., None])[..., 0]
    if options.box:  # the box is a full frame, squeezed
        backward, origin = backward / extent[..., None], (origin - start) / extent
    return np.concatenate([backward, origin[..., None] * size], axis=2).astype(np.float32)


def distort(mask: DataNode, change: DataNode, size: int, options: DistortionOptions, device: str) -> DataNode:
    """Distort a view's mask, uint8 [v, v, 1]; change: float32 [2, 3] of `draw_distortions`, on the CPU."""
    if options.box:
        mask = constant(np.ones((size, size, 1)), np.uint8, device, layout="HWC")
    return fn.warp_affine(mask, matrix=change, interp_type=types.INTERP_NN, fill_value=0)
