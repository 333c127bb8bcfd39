"""Hierarchical saliency: contrast of regions in three layers, in which small patterns vanish one by one.

After Q. Yan, L. Xu, J. Shi, J. Jia, "Hierarchical Saliency Detection", CVPR 2013. The photo is cut into many
regions; those too small for a layer are merged into the neighbour of nearest colour; a region of a layer is
salient by its contrast to near regions and by lying in the middle; a quadratic cost on the tree of regions
reconciles the layers. **Not a reproduction**: constants are from memory, none could be checked against the
paper or its program, and F is some seven points below what the original's should be. It is here as a fourth,
noisy voter of `fused`, whose errors are others than those of `mc`, `dsr` and `rbd`.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_gradient_magnitude, maximum_filter, minimum_filter
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve
from skimage.color import rgb2luv
from skimage.segmentation import watershed

from tools.offline.detectors.base import stretch
from tools.offline.detectors.superpixels import (
    Handcrafted,
    HandcraftedOptions,
    Small,
    Superpixels,
    distances,
)

SQUARES = 3, 17, 33
"""Side of the square that a region of each layer must hold, in pixels of a photo of SQUARES_SIDE."""
SQUARES_SIDE = 400
SPACE_VARIANCE = 0.2
"""Twice that of the reach of contrast, in sides of the photo."""
CENTRE = 9.0
"""How fast the middle's preference falls."""
LAYER_WEIGHTS = 0.5, 4.0, 2.0
TREE_WEIGHT = 4.0


class HSOptions(HandcraftedOptions):
    """Options of hierarchical saliency."""

    name: Literal["hs"] = "hs"
    side: int = Field(default=200, ge=64)
    """The photo is worked on with its longest side at most this, in pixels."""

    def _build(self) -> "HS":
        return HS(self)


class HS(Handcrafted):
    """Hierarchical saliency."""

    def detect(self, photo: Small) -> np.ndarray:
        """The map of the smaller photo, float [h, w] in [0, 1]."""
        luv = rgb2luv(photo.rgb)
        layers = [Superpixels(labels, luv) for labels in regions(luv)]
        if layers[0].flat:
            return np.zeros(luv.shape[:2])
        return stretch(reconcile(layers))[layers[0].labels]


def regions(luv: np.ndarray) -> list[np.ndarray]:
    """Labels of each layer, int [h, w], from fine to coarse; a region lies within one of the next layer."""
    gradient = sum(gaussian_gradient_magnitude(luv[..., channel], 1.0) ** 2 for channel in range(3))
    labels = np.maximum(watershed(np.sqrt(gradient)) - 1, 0)  # a flat gradient has no minimum, so no label
    layers = []
    for square in SQUARES:
        side = max(2, round(square * max(labels.shape) / SQUARES_SIDE))
        while (small := _too_small(labels, side)).any() and labels.max():
            labels = _merge(labels, luv, small)
        layers.append(labels)
    return layers


def _too_small(labels: np.ndarray, side: int) -> np.ndarray:
    """True for every region that holds no square of this side, [N]."""
    small = np.ones(labels.max() + 1, bool)
    if min(labels.shape) >= side:
        # Of an even square the filters' window lies up and left of its pixel, beyond the photo mirrored:
        # only windows that lie within the photo count.
        whole = minimum_filter(labels, side) == maximum_filter(labels, side)
        before, after = side // 2, (side - 1) // 2
        inner = (slice(before, labels.shape[0] - after), slice(before, labels.shape[1] - after))
        small[labels[inner][whole[inner]]] = False
    return small


def _merge(labels: np.ndarray, luv: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Each small region, the smallest first, goes into the neighbour of nearest colour, unless it grew."""
    count = labels.max() + 1
    flat = labels.ravel()
    pixels = np.bincount(flat, minlength=count).astype(float)
    sums = np.stack([np.bincount(flat, luv[..., channel].ravel(), count) for channel in range(3)], 1)
    beside: list[set[int]] = [set() for _ in range(count)]
    for one, other in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        apart = one != other
        for first, second in {*zip(one[apart].tolist(), other[apart].tolist(), strict=True)}:
            beside[first].add(second)
            beside[second].add(first)
    into = np.arange(count)
    grown = np.zeros(count, bool)
    for region in np.flatnonzero(small)[np.argsort(pixels[small], kind="stable")].tolist():
        if grown[region] or not beside[region]:
            continue
        near = np.array(sorted(beside[region]))
        away = sums[near] / pixels[near, None] - sums[region] / pixels[region]
        to = int(near[(away**2).sum(1).argmin()])
        into[region], grown[to] = to, True
        pixels[to] += pixels[region]
        sums[to] += sums[region]
        for other in beside[region]:
            beside[other].discard(region)
            if other != to:
                beside[other].add(to)
                beside[to].add(other)
    while (into != into[into]).any():
        into = into[into]
    return np.unique(into, return_inverse=True)[1].reshape(-1)[labels]


def cue(regions: Superpixels) -> np.ndarray:
    """Contrast times the middle's preference of every region, [N]."""
    reach = np.exp(-(distances(regions.position) ** 2) / SPACE_VARIANCE)
    share = np.bincount(regions.labels.ravel()) / regions.labels.size
    y, x = (np.indices(regions.labels.shape) + 0.5) / np.array(regions.labels.shape)[:, None, None]
    middle = regions.mean(np.exp(-CENTRE * ((y - 0.5) ** 2 + (x - 0.5) ** 2)))
    return (reach * regions.colour_distance) @ share * middle


def reconcile(layers: list[Superpixels]) -> np.ndarray:
    """The saliency of the finest layer's regions, [N], that costs the tree least."""
    starts = np.cumsum([0, *(layer.count for layer in layers)])
    weights = np.repeat(LAYER_WEIGHTS, np.diff(starts))
    parent = np.empty(starts[-2], int)
    for layer, above, start, end in zip(layers, layers[1:], starts, starts[1:], strict=False):
        parent[start + layer.labels] = end + above.labels
    ties = (np.full(len(parent), TREE_WEIGHT), (np.arange(len(parent)), parent))
    tie = coo_matrix(ties, shape=(starts[-1], starts[-1]))
    tie = tie + tie.T
    system = diags(weights + np.asarray(tie.sum(1)).ravel()) - tie
    return spsolve(system.tocsc(), weights * np.concatenate([cue(each) for each in layers]))[: starts[1]]
