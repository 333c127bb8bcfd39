"""Dense and sparse reconstruction: saliency is how badly the photo's border can make up a superpixel.

X. Li, H. Lu, L. Zhang, X. Ruan, M.-H. Yang, "Saliency Detection via Dense and Sparse Reconstruction", ICCV
2013. Superpixels of the border are templates; the errors of reconstructing the others from them, by principal
components and by the lasso, are smoothed within clusters, put together over scales, biased towards the
object's centre, and joined by Bayes' rule. Constants are those of the authors' published program, as are two
choices in which it differs from the paper: one principal component more than 95 % of the variance needs, and
centring on the mean of all superpixels. Other than there, no artificial frame is cut off first, the lasso is
solved by 150 steps of FISTA, k-means starts from the points farthest apart, and a value outside a histogram's
range has no likelihood in it.
"""

from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from tools.offline.detectors.base import stretch
from tools.offline.detectors.superpixels import (
    Handcrafted,
    HandcraftedOptions,
    Small,
    Superpixels,
    distances,
    segment,
)

SCALES = {
    8: ((50, 10), (100, 10), (150, 20), (200, 20), (250, 25), (300, 25), (350, 30), (400, 30)),
    3: ((100, 10), (200, 20), (300, 25)),
}
"""Superpixels and compactness of each scale; the paper has eight."""
SPARSITY = 0.01
STEPS = 150
VARIANCE = 0.95
"""Share that the principal components keep."""
CLUSTERS = 8
KEPT = 0.5
"""Of a superpixel's own error, as it is smoothed within its cluster."""
REACH = 0.25
"""Sigma of the object's Gaussian, in sides of the photo."""
BINS = 60


class DSROptions(HandcraftedOptions):
    """Options of dense and sparse reconstruction."""

    name: Literal["dsr"] = "dsr"
    scales: Literal[3, 8] = 8
    """Sizes of superpixels."""

    def _build(self) -> "DSR":
        return DSR(self)


class DSR(Handcrafted):
    """Dense and sparse reconstruction."""

    options: DSROptions

    def detect(self, photo: Small) -> np.ndarray:
        """The map of the smaller photo, float [h, w] in [0, 1]."""
        features = pixel_features(photo)
        total, weights = np.zeros((2, *features.shape[1:])), 1e-12
        for count, compactness in SCALES[self.options.scales]:
            pixels = segment(photo, count, compactness)
            if pixels.flat:
                continue
            means = np.stack([pixels.mean(feature) for feature in features], 1)
            errors = [smooth(error, means) for error in reconstruct(means, pixels)]
            weight = 1 / (np.sqrt(((features - means.T[:, pixels.labels]) ** 2).sum(0)) + 1e-3)
            total += weight * np.stack(errors)[:, pixels.labels]
            weights += weight
        dense, sparse = (_towards_object(stretch(each)) for each in total / weights)
        return stretch(_posterior(sparse, dense) + _posterior(dense, sparse))


def pixel_features(photo: Small) -> np.ndarray:
    """RGB in [0, 1], Lab with each channel stretched over the photo, x and y in sides: float [8, h, w]."""
    height, width = photo.rgb.shape[:2]
    y, x = np.mgrid[:height, :width]
    lab = [stretch(photo.lab[..., channel]) for channel in range(3)]
    return np.stack([*np.moveaxis(photo.rgb / 255, -1, 0), *lab, x / width, y / height])


def reconstruct(features: np.ndarray, pixels: Superpixels) -> tuple[np.ndarray, np.ndarray]:
    """Dense and sparse errors of every superpixel, features [N, 8], from the border's; [N] in [0, 1]."""
    border = features[pixels.border]
    _, spread, axes = np.linalg.svd(border - border.mean(0), full_matrices=False)
    share = np.cumsum(spread**2) / max((spread**2).sum(), 1e-12)
    axes = axes[: int(np.searchsorted(share, VARIANCE)) + 2]
    centred = features - features.mean(0)
    dense = np.linalg.norm(centred - centred @ axes.T @ axes, axis=1)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    templates = unit[pixels.border]
    sparse = ((unit - lasso(unit, templates) @ templates) ** 2).sum(1)
    return stretch(dense), stretch(sparse)


def lasso(points: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """The minimum of |p - aB|^2 / 2 + SPARSITY |a|_1 for points p [N, D] and templates B [M, D]: a [N, M].

    FISTA: A. Beck, M. Teboulle, 2009.
    """
    rate = 1 / np.linalg.norm(templates, 2) ** 2
    codes = ahead = np.zeros((len(points), len(templates)))
    momentum = 1.0
    for _ in range(STEPS):
        moved = ahead - rate * ((ahead @ templates - points) @ templates.T)
        last, codes = codes, moved - np.clip(moved, -rate * SPARSITY, rate * SPARSITY)
        before, momentum = momentum, (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = codes + (before - 1) / momentum * (codes - last)
    return codes


def smooth(error: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Errors [N] drawn to those of alike superpixels of the same cluster, the largest first; in [0, 1]."""
    cluster = cluster_of(features)
    alike = np.exp(-(distances(features) ** 2) / (2 * max(features.var(0).mean(), 1e-12)))
    alike *= cluster[:, None] == cluster
    alike /= alike.sum(1, keepdims=True)
    error = error.copy()
    for number in np.argsort(-error, kind="stable"):
        error[number] = KEPT * error[number] + (1 - KEPT) * (alike[number] @ error)
    return stretch(error)


def cluster_of(features: np.ndarray) -> np.ndarray:
    """The cluster of every superpixel, [N], by k-means, which starts from points that are far apart."""
    centres = features[[np.linalg.norm(features - features.mean(0), axis=1).argmin()]]
    while len(centres) < min(CLUSTERS, len(features)):
        nearest = cdist(features, centres).min(1)
        centres = np.concatenate([centres, features[[nearest.argmax()]]])
    for _ in range(20):
        cluster = cdist(features, centres).argmin(1)
        member = cluster == np.arange(len(centres))[:, None]
        sizes = member.sum(1, keepdims=True)
        centres = np.where(sizes, member @ features / np.maximum(sizes, 1), centres)
    return cluster


def _towards_object(saliency: np.ndarray) -> np.ndarray:
    """A map times a Gaussian about its centroid, in [0, 1]."""
    y, x = np.indices(saliency.shape) / np.array(saliency.shape)[:, None, None]
    total = max(saliency.sum(), 1e-12)
    squares = (y - (y * saliency).sum() / total) ** 2 + (x - (x * saliency).sum() / total) ** 2
    return stretch(saliency * np.exp(-squares / (2 * REACH**2)))


def _posterior(prior: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Bayes' rule with one map as the prior and the other as what is observed, in [0, 1]."""
    inside = prior > prior.mean()
    if not inside.any():
        return np.zeros_like(prior)
    likelihood_inside, likelihood_outside = (_likelihood(seen, part) for part in (inside, ~inside))
    foreground = likelihood_inside * prior
    return stretch(foreground / (foreground + likelihood_outside * (1 - prior) + 1e-12))


def _likelihood(values: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Of every value, by the histogram of a part of them over its own range."""
    counts, edges = np.histogram(values[part], BINS)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
    within = (values >= edges[0]) & (values <= edges[-1])
    return np.where(within, counts[bins] / counts.sum(), 0.0)
