"""Masks as COCO's files store them, read back."""

import numpy as np
import pytest

from tools.synthetic.segmentations import outline, run_lengths
from train.detect.masks import read_segmentation

RING = np.array([[0, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1]], bool)


def test_an_outline_goes_between_the_middles() -> None:
    """Two pixels in the corner of a photo."""
    [ring] = outline(np.array([[1, 1, 0], [0, 0, 0]], bool))
    assert sorted(zip(ring[::2], ring[1::2], strict=True)) == [
        (0, 0.5),
        (0.5, 0),
        (0.5, 1),
        (1.5, 0),
        (1.5, 1),
        (2, 0.5),
    ]


def test_a_hole_is_cut_through() -> None:
    """Into what is above the middle of the hole, and the U below."""
    assert len(outline(RING)) == 2
    assert read_segmentation(outline(RING), 3, 4).mask(3, 4).tolist() == RING.tolist()


def test_run_lengths_go_down_the_columns() -> None:
    assert run_lengths(RING) == [3, 4, 1, 4]
    assert run_lengths(np.ones((2, 2), bool)) == [0, 4]


@pytest.mark.parametrize("seed", range(4))
def test_any_mask_is_read_back(seed: int) -> None:
    """Specks, touching corners, holes in holes: by us, and by COCO's own code."""
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).random((17, 23)) < 0.2 + 0.2 * seed
    polygons, lengths = outline(mask), {"size": [17, 23], "counts": run_lengths(mask)}
    for value in (polygons, lengths):
        assert (read_segmentation(value, 17, 23).mask(17, 23) == mask).all()
        written = coco.frPyObjects(value, 17, 23)
        assert (coco.decode(coco.merge(written) if value is polygons else written) == mask).all()
