"""Refinement of any detector's maps by the dense random field (`dali_bgaug.crf`)."""

from collections.abc import Sequence

import numpy as np

from dali_bgaug.crf import refine
from tools.offline.detectors.base import Detector, Photo, scale, thumbnail, to_saliency

WORKING_SIDE = 300
"""The longest side of the photo, at most, in pixels."""


class Refined(Detector):
    """A detector whose maps are refined by the random field; they count as probabilities."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.batch = detector, detector.batch

    def __call__(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Saliency maps, uint8 [H, W]."""
        return [
            _refined(photo.image, map_) for photo, map_ in zip(photos, self.detector(photos), strict=True)
        ]


def _refined(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    small = thumbnail(image, WORKING_SIDE)
    return to_saliency(refine(small, scale(saliency, small.shape[1::-1]) / 255), image.shape[1::-1])
