"""Refinement of detectors' maps by the random field."""

from pathlib import Path

import numpy as np

from tests.helpers.detectors import iou, scene
from tools.offline.detectors import Photo, read_options


def test_any_detector_can_be_refined() -> None:
    """The map's blocky edge comes to lie on the disc's; the option is the detector's."""
    image, mask = scene()
    image = image.repeat(4, 0).repeat(4, 1)
    mask = mask.repeat(4, 0).repeat(4, 1)
    photo = Photo("p.jpg", Path("p.jpg"), image)
    plain, refined = (read_options("rbd", {}, [f"crf={crf}"]).build() for crf in ("false", "true"))
    assert refined.batch == plain.batch
    (before,), (after,) = plain([photo]), refined([photo])
    assert after.shape == mask.shape
    assert np.abs(after / 255 - mask).mean() < np.abs(before / 255 - mask).mean()
    assert iou(after >= 128, mask) > 0.95
