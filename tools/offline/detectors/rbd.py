"""Robust background detection: saliency without weights or labels.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014. The
photo is cut into superpixels. One that is tied to much of the photo's border is background (boundary
connectivity, section 3); one that differs from the background, above all from what is near, is foreground
(section 4.1); a quadratic cost on the superpixels' graph, solved exactly, reconciles both and keeps alike
neighbours alike (4.2). Colour scales follow the authors' published program, which draws them from the photo.
"""

from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.segmentation import slic

from tools.offline.detectors.base import Detector, DetectorOptions, stretch

VISIBLE = 2.0
"""Distance in Lab that an eye just sees: a photo without any has no foreground, and its noise must not
become one."""
BOUNDARY_SIGMA = 1.0
"""Of boundary connectivity (equation 4)."""
SURELY_BACKGROUND = 3.0
"""Boundary connectivity from which a superpixel is background beyond doubt."""
SPACE_SIGMA = 0.4
"""Reach of contrast, in sides of the photo (equation 5: 0.25 of squared distances)."""
BACKGROUND_WEIGHT = 5.0
SMOOTHNESS_FLOOR = 0.1
"""Mu of equation 9: the least tie between neighbours, which erases noise in cluttered regions."""


class RBDOptions(DetectorOptions):
    """Options of robust background detection."""

    THRESHOLD: ClassVar[float] = 0.4

    name: Literal["rbd"] = "rbd"
    side: int = Field(default=300, ge=64)
    """The photo is worked on with its longest side at most this, in pixels."""
    superpixels: int = Field(default=200, ge=16)
    """About as many superpixels a photo."""
    compactness: float = Field(default=40.0, gt=0)
    """Of SLIC: the larger, the squarer a superpixel."""
    sigma: float = Field(default=1.0, ge=0)
    """Of the blur before SLIC, in pixels."""

    def build(self) -> "RBD":
        """The detector."""
        return RBD(self)


class RBD(Detector):
    """Robust background detection."""

    def __init__(self, options: RBDOptions) -> None:
        self.options = options

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """Uint8 [H, W, 3] -> float [h, w] in [0, 1] of the smaller photo it works on."""
        picture = Image.fromarray(image)
        picture.thumbnail((self.options.side, self.options.side), Image.Resampling.BOX)
        rgb = np.asarray(picture)
        count, options = self.options.superpixels, self.options.model_dump(include={"compactness", "sigma"})
        # It turns RGB into Lab itself; Lab given to it would be scaled to [0, 1] first.
        labels = slic(rgb, n_segments=count, start_label=0, **options)
        if labels.max() < 2:  # nothing to tell apart
            return np.zeros(labels.shape)
        return stretch(superpixel_saliency(labels, rgb2lab(rgb)))[labels]


def superpixel_saliency(labels: np.ndarray, lab: np.ndarray) -> np.ndarray:
    """The saliency of every superpixel. labels: int [H, W], 0 … N - 1; lab: float [H, W, 3]; returns [N]."""
    count = labels.max() + 1
    height, width = labels.shape
    pixels = np.bincount(labels.ravel(), minlength=count)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(labels.ravel(), values.ravel(), count) / pixels

    colour = np.stack([mean(lab[..., channel]) for channel in range(3)], 1)
    y, x = np.mgrid[:height, :width]
    position = np.stack([mean(y / height), mean(x / width)], 1)
    colour_distance = _distances(colour)
    if colour_distance.max() < VISIBLE:
        return np.zeros(count)
    space_distance = _distances(position)

    near = _neighbours(labels, count)
    border = np.zeros(count, bool)
    border[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    ring = border[:, None] & border[None, :] & ~np.eye(count, dtype=bool)
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


def _distances(points: np.ndarray) -> np.ndarray:
    """[N, D] -> Euclidean [N, N]."""
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))


def _neighbours(labels: np.ndarray, count: int) -> np.ndarray:
    """Bool [N, N]: the two superpixels touch (also at a corner)."""
    near = np.zeros((count, count), bool)
    for one, other in (
        (labels[:-1], labels[1:]),
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[:-1, 1:], labels[1:, :-1]),
    ):
        near[one, other] = near[other, one] = True
    np.fill_diagonal(near, False)
    return near


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
