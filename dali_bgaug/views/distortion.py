"""Distortions of a view's mask: what is drawn, and what that makes of a crop box."""

import math

import numpy as np

from dali_bgaug.views.options import DistortionOptions


def draw_distortions(jobs: np.ndarray, options: DistortionOptions, rng: np.random.Generator) -> None:
    """Draw a distortion of each job's mask into its record, table.JOB [N]."""
    count = len(jobs)

    def spread(limit: float, *shape: int) -> np.ndarray:
        return rng.uniform(-limit, limit, (count, *shape))

    turn, lean = np.deg2rad(spread(options.rotate)), np.tan(np.deg2rad(spread(options.shear, 2)))
    mirror = np.where(rng.random(count) < options.flip_p, -1.0, 1.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
    shear = np.tile(np.eye(2), (count, 1, 1))
    shear[:, 0, 1], shear[:, 1, 0] = lean.T
    linear = rotation @ shear
    linear[..., 0] *= mirror[:, None]
    jobs["distorted"], jobs["box"] = True, options.box
    jobs["warp"], jobs["translate"] = np.linalg.inv(linear), spread(options.translate, 2)


def affine(jobs: np.ndarray, crop_boxes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Affine maps from a pixel (x, y) of a distorted mask to where it comes from, in pixels, float [N, 2, 3].

    A point p goes to inverse(warp) @ (p - centre) + centre + shift; pixels are looked up backwards.

    Args:
        jobs: table.JOB [N], with what was drawn.
        crop boxes: of the views, [N, 4], x0 > x1 in a flipped one.
        boxes: of the foreground, [N, 4] in the crop boxes' coordinates.
    """
    y0, x0, y1, x1 = crop_boxes.T[..., None]
    edges = [(boxes[:, [1, 3]] - x0) / (x1 - x0), (boxes[:, [0, 2]] - y0) / (y1 - y0)]
    edges = np.clip(np.sort(edges, axis=-1), 0, 1)  # [x and y, N, start and end], inside the view
    start, extent = edges[..., 0].T, np.maximum(edges[..., 1] - edges[..., 0], 1e-6).T
    backward, shift = jobs["warp"], jobs["translate"] * extent
    origin = 0.5 - (backward @ (0.5 + shift)[..., None])[..., 0]
    # The box is a full frame, squeezed.
    squeezed = jobs["box"][:, None] != 0
    backward = np.where(squeezed[..., None], backward / extent[..., None], backward)
    origin = np.where(squeezed, (origin - start) / extent, origin)
    return np.concatenate([backward, (origin * jobs["size"][:, None])[..., None]], axis=2)


def foreground_box(packed: np.ndarray) -> np.ndarray:
    """Bounding boxes of bit-packed masks, uint8 [N, S*S/8]: y0, x0, y1, x1 as fractions, float [N, 4].

    Half-open; all zero where there is no foreground.
    """
    size = math.isqrt(8 * packed.shape[1])
    rows = packed.reshape(len(packed), size, size // 8)
    seen = (
        np.logical_or.reduce(rows, axis=2),
        np.unpackbits(np.bitwise_or.reduce(rows, axis=1), axis=1).astype(bool),
    )
    first = [some.argmax(axis=1) for some in seen]
    end = [(size - some[:, ::-1].argmax(axis=1)) * some.any(axis=1) for some in seen]
    return np.stack([*first, *end], axis=1) / size
