"""Dense conditional random field of two labels: a soft map is drawn to the edges of its photo.

P. Krähenbühl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", 2011:
every pixel is tied to every other, by nearness (a Gaussian kernel) and by nearness and like colour (a
bilateral one), with Potts' penalty for unlike labels. A step of mean field is two filters, and each of them a
permutohedral lattice (A. Adams et al., "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
2010). Widths and weights are those of DeepUSPS (T. Nguyen et al., 2019), for photos of 432 pixels. Results
are pydensecrf2's, but for rounding.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

SIDE = 432
"""Longest side of the photos, in pixels, that the widths are for; of others they scale with it."""
NEAR_SIGMA, NEAR_WEIGHT = 3.0, 3.0
ALIKE_SIGMA, ALIKE_WEIGHT = 80.0, 10.0
COLOUR_SIGMA = 13.0
"""In grey levels, whatever the size."""
STEPS = 5
LEAST = 1e-8
"""Probabilities are at least this and at most 1 less this: no logarithm of 0."""


Filter = Callable[[np.ndarray], np.ndarray]


def refine(image: np.ndarray, saliency: np.ndarray, side: float | None = None) -> np.ndarray:
    """Probability of foreground after mean field, float [H, W].

    image: uint8 [H, W, 3]. saliency: float [H, W], the probability before. side: in pixels, what the widths
    are scaled for; None is the longer side of the image.
    """
    shape = saliency.shape
    ratio = (side or max(shape)) / SIDE
    place = np.indices(shape)[::-1].reshape(2, -1)  # x, y, as pydensecrf has them: the lattice is not round
    colours = np.moveaxis(image / COLOUR_SIGMA, -1, 0).reshape(3, -1)
    near = _normalised(lattice(place / (NEAR_SIGMA * ratio)), saliency.size)
    alike = _normalised(lattice(np.concatenate([place / (ALIKE_SIGMA * ratio), colours])), saliency.size)
    probability = np.clip(saliency.ravel().astype(float), LEAST, 1 - LEAST)
    unary = np.log(probability / (1 - probability))
    logit = unary
    for _ in range(STEPS):
        belief = np.tanh(logit / 2)  # of foreground less of background
        logit = unary + NEAR_WEIGHT * near(belief) + ALIKE_WEIGHT * alike(belief)
    return ((1 + np.tanh(logit / 2)) / 2).reshape(shape)


def _normalised(kernel: Filter, pixels: int) -> Filter:
    """A kernel divided by the square roots of both pixels' sums."""
    norm = 1 / np.sqrt(kernel(np.ones(pixels)) + 1e-20)
    return lambda values: norm * kernel(norm * values)


def lattice(points: np.ndarray) -> Filter:
    """The Gaussian kernel exp(-|f_i - f_j|^2 / 2) of points [D, N], up to a factor, as a filter of [N]."""
    count, pixels = points.shape
    size = count + 1
    # The points in the hyperplane of the lattice, scaled so that blurring by 1 2 1 has the variance 1.
    axis = np.arange(1, size)
    scaled = points * (np.sqrt(2 / 3) * size / np.sqrt(axis * (axis + 1)))[:, None]
    tail = np.cumsum(scaled[::-1], 0)[::-1]
    plane = np.concatenate([tail, np.zeros((1, pixels))])
    plane[1:] -= axis[:, None] * scaled
    # The simplex of a point: the nearest vertex whose remainder is 0, and the order of what is left.
    corner = np.rint(plane / size).astype(np.int64)
    rest = plane / size - corner
    rank = np.zeros((size, pixels), np.int64)
    for one in range(size):
        for other in range(one + 1, size):
            behind = rest[one] < rest[other]
            rank[one] += behind
            rank[other] += ~behind
    rank += corner.sum(0)
    wrap = (rank < 0).astype(np.int64) - (rank > count)
    rank += wrap * size
    corner += wrap
    rest -= wrap
    ordered = np.empty((size, pixels))
    np.put_along_axis(ordered, rank, rest, 0)  # by rank, descending
    weight = np.empty((size, pixels))  # barycentric
    weight[0] = 1 + ordered[-1] - ordered[0]
    weight[1:] = ordered[-2::-1] - ordered[:0:-1]
    # Vertices as numbers: of each the first D coordinates, with room for a step beyond either end.
    first = corner[:count] * size
    low = first.min(1) - 2 * size
    room = first.max(1) + 2 * size - low + 1
    radix = np.append(np.cumprod(room[:0:-1])[::-1], 1)
    base = ((first - low[:, None]) * radix[:, None]).sum(0)
    keys = np.empty((size, pixels), np.int64)
    for vertex in range(size):
        shift = vertex - size * (rank[:count] > count - vertex)
        keys[vertex] = base + (shift * radix[:, None]).sum(0)
    known, index = np.unique(keys.T, return_inverse=True)
    starts = np.arange(0, size * pixels + 1, size)
    splat = csr_matrix((weight.T.ravel(), index.ravel(), starts), (pixels, len(known)))
    gather = splat.T.tocsr()
    steps = [size * radix[axis] - radix.sum() for axis in range(count)] + [-radix.sum()]
    beside = [[_find(known, known + sign * step) for sign in (1, -1)] for step in steps]

    def blur(values: np.ndarray) -> np.ndarray:
        vertices = np.append(gather @ values, 0.0)  # the last stands for those that are missing
        for above, below in beside:
            vertices[:-1] += 0.5 * (vertices[above] + vertices[below])
        return splat @ vertices[:-1]

    return blur


def _find(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where keys are among the known, sorted; their number where they are not."""
    index = np.searchsorted(known, keys)
    missing = known[np.minimum(index, len(known) - 1)] != keys
    return np.where(missing, len(known), index)
