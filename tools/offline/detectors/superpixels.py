"""Superpixels, and what the detectors without weights share: the smaller photo, its colours, its graph."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from pydantic import Field
from scipy.spatial.distance import cdist
from skimage.color import rgb2lab
from skimage.segmentation import slic

from tools.offline.detectors.base import Detector, DetectorOptions, thumbnail

VISIBLE = 2.0
"""Distance in Lab that an eye just sees: a photo without any has no foreground, and its noise must not
become one."""


class Small(NamedTuple):
    """A photo made smaller, which a detector works on."""

    rgb: np.ndarray
    """uint8 [h, w, 3]."""
    lab: np.ndarray
    """float [h, w, 3]."""


def shrink(image: np.ndarray, side: int) -> Small:
    """Uint8 [H, W, 3] -> the photo with its longest side at most `side` pixels."""
    rgb = thumbnail(image, side)
    return Small(rgb, rgb2lab(rgb))


@dataclass(frozen=True)
class Superpixels:
    """N superpixels of a photo."""

    labels: np.ndarray
    """int [h, w], 0 … N - 1."""
    colours: np.ndarray
    """Of the pixels in Lab (or Luv), float [h, w, 3]."""

    @cached_property
    def count(self) -> int:
        """N."""
        return int(self.labels.max()) + 1

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Float [h, w] -> the mean over every superpixel, [N]."""
        labels = self.labels.ravel()
        return np.bincount(labels, values.ravel(), self.count) / np.bincount(labels, minlength=self.count)

    @cached_property
    def colour(self) -> np.ndarray:
        """Mean, [N, 3]."""
        return np.stack([self.mean(self.colours[..., channel]) for channel in range(3)], 1)

    @cached_property
    def position(self) -> np.ndarray:
        """Mean y and x in sides of the photo, [N, 2]."""
        height, width = self.labels.shape
        y, x = np.mgrid[:height, :width]
        return np.stack([self.mean(y / height), self.mean(x / width)], 1)

    @cached_property
    def border(self) -> np.ndarray:
        """True where it touches the photo's border, [N]."""
        labels, border = self.labels, np.zeros(self.count, bool)
        border[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
        return border

    @cached_property
    def near(self) -> np.ndarray:
        """Bool [N, N]: the two touch (also at a corner)."""
        labels, near = self.labels, np.zeros((self.count, self.count), bool)
        for one, other in (
            (labels[:-1], labels[1:]),
            (labels[:, :-1], labels[:, 1:]),
            (labels[:-1, :-1], labels[1:, 1:]),
            (labels[:-1, 1:], labels[1:, :-1]),
        ):
            near[one, other] = near[other, one] = True
        np.fill_diagonal(near, False)
        return near

    @cached_property
    def colour_distance(self) -> np.ndarray:
        """Of means, [N, N]."""
        return distances(self.colour)

    @property
    def flat(self) -> bool:
        """True if there is nothing to tell apart."""
        return self.count < 3 or self.colour_distance.max() < VISIBLE


def segment(photo: Small, count: int, compactness: float, sigma: float = 0.0) -> Superpixels:
    """About `count` superpixels by SLIC (R. Achanta et al., 2012)."""
    labels = slic(  # turns RGB into Lab itself; Lab given to it would be scaled to [0, 1] first
        photo.rgb, n_segments=count, compactness=compactness, sigma=sigma, start_label=0
    )
    return Superpixels(labels, photo.lab)


def distances(points: np.ndarray) -> np.ndarray:
    """[N, D] -> Euclidean [N, N]."""
    return cdist(points, points)


class HandcraftedOptions(DetectorOptions):
    """Options of every detector that works on a smaller photo, without weights."""

    THRESHOLD = 0.5

    side: int = Field(default=300, ge=64)
    """The photo is worked on with its longest side at most this, in pixels."""


class Handcrafted(Detector):
    """A detector without weights: a photo at a time, made smaller."""

    def __init__(self, options: HandcraftedOptions) -> None:
        self.options = options

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """A photo, uint8 [H, W, 3] -> its map at the smaller size, float [h, w] in [0, 1]."""
        return self.detect(shrink(image, self.options.side))

    @abstractmethod
    def detect(self, photo: Small) -> np.ndarray:
        """The map of the smaller photo, float [h, w] in [0, 1]."""
