"""Robust background detection: saliency without weights or labels.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014. The
photo is cut into superpixels. One that is tied to much of the photo's border is background (boundary
connectivity, section 3); one that differs from the background, above all from what is near, is foreground
(section 4.1); a quadratic cost on the superpixels' graph, solved exactly, reconciles both and keeps alike
neighbours alike (4.2). Colour scales follow the authors' published program, which draws them from the photo.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.filters import threshold_otsu

from tools.offline.detectors.base import stretch
from tools.offline.detectors.superpixels import (
    Handcrafted,
    HandcraftedOptions,
    Small,
    Superpixels,
    distances,
    segment,
)

BOUNDARY_SIGMA = 1.0
"""Of boundary connectivity (equation 4)."""
SURELY_BACKGROUND = 3.0
"""Boundary connectivity from which a superpixel is background beyond doubt."""
SPACE_SIGMA = 0.4
"""Reach of contrast, in sides of the photo (equation 5: 0.25 of squared distances)."""
BACKGROUND_WEIGHT = 5.0
SMOOTHNESS_FLOOR = 0.1
"""Mu of equation 9: the least tie between neighbours, which erases noise in cluttered regions."""


class RBDOptions(HandcraftedOptions):
    """Options of robust background detection."""

    THRESHOLD = 0.4

    name: Literal["rbd"] = "rbd"
    superpixels: int = Field(default=200, ge=16)
    """About as many superpixels a photo."""
    compactness: float = Field(default=40.0, gt=0)
    """Of SLIC: the larger, the squarer a superpixel."""
    sigma: float = Field(default=1.0, ge=0)
    """Of the blur before SLIC, in pixels."""

    def _build(self) -> "RBD":
        return RBD(self)


class RBD(Handcrafted):
    """Robust background detection."""

    options: RBDOptions

    def detect(self, photo: Small) -> np.ndarray:
        """The map of the smaller photo, float [h, w] in [0, 1]."""
        options = self.options
        pixels = segment(photo, options.superpixels, options.compactness, options.sigma)
        if pixels.flat:
            return np.zeros(pixels.labels.shape)
        return stretch(superpixel_saliency(pixels))[pixels.labels]


def superpixel_saliency(pixels: Superpixels) -> np.ndarray:
    """The saliency of every superpixel, [N]."""
    near, border, colour_distance = pixels.near, pixels.border, pixels.colour_distance
    space_distance = distances(pixels.position)
    ring = border[:, None] & border[None, :] & ~np.eye(pixels.count, dtype=bool)
    clip, geodesic_sigma, smooth_sigma = _colour_scales(near, colour_distance)

    background = _background_probability(near | ring, border, colour_distance, clip, geodesic_sigma)
    reach = np.exp(-(space_distance**2) / (2 * SPACE_SIGMA**2))
    contrast = stretch((colour_distance * reach) @ background)
    foreground = np.where(contrast >= threshold_otsu(contrast), contrast, 0) if np.ptp(contrast) else contrast

    two_steps = (near @ near) | near | ring
    np.fill_diagonal(two_steps, False)
    tie = two_steps * (np.exp(-(colour_distance**2) / (2 * smooth_sigma**2)) + SMOOTHNESS_FLOOR)
    system = np.diag(tie.sum(1) + BACKGROUND_WEIGHT * background + foreground) - tie
    return np.linalg.solve(system, foreground)


def _colour_scales(near: np.ndarray, distance: np.ndarray) -> tuple[float, float, float]:
    """Scales of what is the same colour in this photo: clip of an edge, sigmas of paths and smoothness."""
    closest = np.where(near, distance, np.inf).min(1)
    closest = float(closest[np.isfinite(closest)].mean())
    largest = np.sort(distance, axis=None)[-max(1, distance.size // 100) :].mean()
    geodesic = max(5.0, min(10.0, 3 * closest, largest / 10))
    smooth = max(1e-3, min(3 * closest, 0.2 * largest, 20.0))
    return closest, float(geodesic), float(smooth)


def _background_probability(
    edges: np.ndarray, border: np.ndarray, distance: np.ndarray, clip: float, sigma: float
) -> np.ndarray:
    """Boundary connectivity of every superpixel's soft region, as a probability, [N] (equations 1 to 6)."""
    one, other = np.nonzero(edges)
    cost = np.maximum(distance[one, other] - clip, 0) + 1e-9  # a cost of nothing would be no edge
    path = dijkstra(csr_matrix((cost, (one, other)), shape=edges.shape), directed=False)
    same = np.exp(-(path**2) / (2 * sigma**2))
    connectivity = same[:, border].sum(1) / np.sqrt(same.sum(1))
    probability = 1 - np.exp(-(connectivity**2) / (2 * BOUNDARY_SIGMA**2))
    return np.where(connectivity >= SURELY_BACKGROUND, 1.0, probability)
