"""Absorbing Markov chain: saliency is how long a random walk takes to reach the photo's border.

B. Jiang, L. Zhang, H. Lu, C. Yang, M.-H. Yang, "Saliency Detection via Absorbing Markov Chain", ICCV 2013.
The photo is cut into superpixels, tied by likeness of colour to those beside them and beside these; copies of
the border's are absorbing. The expected time to absorption is large for what differs from all that leads to
the border. Constants and the rules on frames, outliers and large smooth middles are those of the authors'
published program, which goes beyond the paper in these. SLIC is scikit-image's.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from tools.offline.detectors.base import stretch
from tools.offline.detectors.superpixels import (
    Handcrafted,
    HandcraftedOptions,
    Small,
    Superpixels,
    segment,
)

SHARPNESS = 10.0
"""Of likeness, per range of distances in the photo."""
WEAK_TIE = 1e-5
FRAME = 13.0
"""The border is an artificial frame if its ties to what lies inside sum to at most this."""
OUTLIER = 1.1
"""A superpixel is unlike all about it if its ties, that of 1 to itself included, sum to less."""
UNDECIDED = 2.0
"""Of the score of a map's histogram, from which on the map has too much grey."""
INSIDE = 0.3
"""An outlier is foreground if one of the superpixels it touches is more salient than this."""


class MCOptions(HandcraftedOptions):
    """Options of the absorbing Markov chain."""

    name: Literal["mc"] = "mc"
    superpixels: int = Field(default=250, ge=16)
    """About as many superpixels a photo."""
    compactness: float = Field(default=20.0, gt=0)
    """Of SLIC: the larger, the squarer a superpixel."""

    def _build(self) -> "MC":
        return MC(self)


class MC(Handcrafted):
    """Absorbing Markov chain."""

    options: MCOptions

    def detect(self, photo: Small) -> np.ndarray:
        """The map of the smaller photo, float [h, w] in [0, 1]."""
        pixels = segment(photo, self.options.superpixels, self.options.compactness)
        if pixels.flat:
            return np.zeros(pixels.labels.shape)
        return absorption(pixels)[pixels.labels]


def absorption(pixels: Superpixels) -> np.ndarray:
    """The saliency of every superpixel in [0, 1], [N]."""
    wrapped = pixels.near.copy()
    for one, other in ((pixels.labels[0], pixels.labels[-1]), (pixels.labels[:, 0], pixels.labels[:, -1])):
        wrapped[one, other] = wrapped[other, one] = True
    ties = wrapped | (wrapped @ wrapped)
    np.fill_diagonal(ties, False)
    span = pixels.colour_distance[ties]
    distance = (pixels.colour_distance - span.min()) / max(span.max() - span.min(), 1e-12)
    tie = np.where(ties, np.exp(-SHARPNESS * distance) + WEAK_TIE, 0.0)
    np.fill_diagonal(tie, 1.0)

    border, frame = pixels.border, np.zeros(pixels.count, bool)
    inner = pixels.near[border].any(0) & ~border
    if inner.any() and (tie * pixels.near)[np.ix_(border, inner)].sum() <= FRAME:
        border, frame = inner, border
    outlier = (tie[:, ~frame].sum(1) < OUTLIER) & ~frame
    kept = ~frame & ~outlier
    if not (kept & border).any():  # nothing would be absorbed
        return np.zeros(pixels.count)
    saliency = np.zeros(pixels.count)
    saliency[kept] = _walk(tie[np.ix_(kept, kept)], border[kept])
    saliency[outlier] = ((saliency > INSIDE) & pixels.near[outlier]).any(1)
    return saliency


def _walk(tie: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Time to absorption at copies of the border's superpixels, stretched to [0, 1]."""
    degree = tie.sum(1)
    system = np.eye(len(tie)) - tie / (degree + tie[:, border].sum(1))[:, None]
    saliency = stretch(np.linalg.solve(system, np.ones(len(tie))))
    bins = np.minimum((saliency * 10).astype(int), 9)
    shares = np.bincount(bins, minlength=10) / len(saliency)
    if shares @ [1, 2, 3, 4, 5, 5, 4, 3, 2, 1] < UNDECIDED:
        return saliency
    return stretch(np.linalg.solve(system, 1 / degree))  # long stays in large smooth regions count less
