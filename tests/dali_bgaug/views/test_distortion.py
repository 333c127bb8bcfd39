"""Distortions of a view's mask, on a rectangle of rows 10 to 30 and columns 20 to 50 of 64."""

import numpy as np
import pytest

from dali_bgaug.shards import pack_mask
from dali_bgaug.views import table
from dali_bgaug.views.distortion import affine, draw_distortions, foreground_box
from dali_bgaug.views.options import DistortionOptions
from tests.helpers.rendering import render_masks

SIZE = 64
MASK = np.zeros((SIZE, SIZE), bool)
MASK[10:30, 20:50] = True
BOX = np.array([10, 20, 30, 50]) / SIZE
WHOLE = np.array([0.0, 0.0, 1.0, 1.0])


def _distorted(
    options: DistortionOptions,
    count: int = 200,
    crop_box: np.ndarray = WHOLE,
    box: np.ndarray = BOX,
    mask: np.ndarray = MASK,
) -> np.ndarray:
    """The mask distorted `count` times: bool [count, SIZE, SIZE]."""
    jobs = table.new_jobs(count)
    jobs["size"] = SIZE
    draw_distortions(jobs, options, np.random.default_rng(0))
    changes = affine(jobs, np.tile(crop_box, (count, 1)), np.tile(box, (count, 1)))
    return render_masks(jobs, changes, mask)


def test_the_box_of_packed_masks_is_exact() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((20, 64, 64)) < 0.002
    masks[0] = False
    boxes = foreground_box(np.stack([np.frombuffer(pack_mask(mask), np.uint8) for mask in masks]))
    assert boxes[0].tolist() == [0, 0, 0, 0]
    for mask, box in zip(masks[1:], boxes[1:] * 64, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_nothing_drawn_changes_nothing() -> None:
    assert np.array_equal(_distorted(DistortionOptions(), 3), np.stack([MASK] * 3))


def test_flip_mirrors_the_view() -> None:
    assert np.array_equal(_distorted(DistortionOptions(flip_p=1.0), 2), np.stack([MASK[:, ::-1]] * 2))
    flipped = (_distorted(DistortionOptions(flip_p=0.5)) != MASK).any(axis=(1, 2))
    assert 70 < flipped.sum() < 130


def test_translation_is_a_share_of_the_foreground() -> None:
    """A quarter of 20 rows and 30 columns, both ways, all of it used."""
    found = _distorted(DistortionOptions(translate=0.25), 400)
    tops, lefts = found.any(axis=2).argmax(axis=1) - 10, found.any(axis=1).argmax(axis=1) - 20
    assert (found.sum(axis=(1, 2)) == MASK.sum()).all()
    assert (tops.min(), tops.max()) == (-5, 5)
    assert -8 <= lefts.min() <= -7 and 7 <= lefts.max() <= 8
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


def test_rotation_turns_about_the_centre() -> None:
    """The rectangle's centre keeps its distance from the view's, and turns by up to 25 degrees."""
    found = _distorted(DistortionOptions(rotate=25.0), 400)
    centres = np.array([np.argwhere(mask).mean(axis=0) + 0.5 for mask in found]) - 32
    start = np.array([20.0, 35.0]) - 32
    assert np.abs(np.hypot(*centres.T) - np.hypot(*start)).max() < 0.5
    angles = np.rad2deg(np.arctan2(*centres.T) - np.arctan2(*start))
    assert 23 < angles.max() < 26 and -26 < angles.min() < -23
    assert np.abs(found.sum(axis=(1, 2)) - MASK.sum()).max() < 40


def test_shear_keeps_the_centre_of_a_centred_mask() -> None:
    centred = np.zeros_like(MASK)
    centred[24:40, 24:40] = True
    found = _distorted(DistortionOptions(shear=25.0), 100, box=np.array([24, 24, 40, 40]) / 64, mask=centred)
    for mask in found:
        assert np.abs(np.argwhere(mask).mean(axis=0) - 31.5).max() < 0.5
    assert (found != centred).any(axis=(1, 2)).mean() > 0.9


@pytest.mark.parametrize(
    ("crop_box", "rows", "columns"),
    [
        ([0, 0, 1, 1], (10, 30), (20, 50)),
        ([0, 1, 1, 0], (10, 30), (14, 44)),  # flipped
        ([0, 0, 0.5, 0.5], (20, 60), (40, 64)),  # cut at the view's edge
    ],
)
def test_the_box_is_the_views(crop_box: list[float], rows: tuple[int, int], columns: tuple[int, int]) -> None:
    speck = np.zeros_like(MASK)  # what the mask is does not matter, its box does
    [found] = _distorted(DistortionOptions(box=True), 1, np.array(crop_box), mask=speck)
    expected = np.zeros_like(MASK)
    expected[slice(*rows), slice(*columns)] = True
    assert np.array_equal(found, expected)
