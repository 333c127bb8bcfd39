"""Segmentations, against masks drawn by hand."""

import numpy as np
import pytest

from train.detect.masks import compress, decompress, read_segmentation

RING = [[0, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("counts", [[3, 4, 1, 4], "3410"])
def test_run_lengths_go_down_the_columns(counts: object) -> None:
    """Compressed, the fourth is its difference to the second."""
    mask = read_segmentation({"size": [3, 4], "counts": counts}, 3, 4).mask(3, 4)
    assert mask.astype(int).tolist() == RING


def test_compressed_run_lengths() -> None:
    """40 is 8 and then 1; 37 - 40 is -3, 29 of 32; 16 needs a second piece, lest it be negative."""
    assert decompress("5X17M") == [5, 40, 7, 37]
    assert decompress("`0") == [16]
    assert decompress("") == []


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (RING, "3410"),
        ([[0, 0], [0, 0]], "4"),
        ([[1, 1], [1, 1]], "04"),
        (np.arange(120).reshape(1, -1) % 80 < 40, "0X1X10"),  # 0, 40, 40, and 40 as its difference to 40
    ],
)
def test_masks_are_compressed(mask: object, text: str) -> None:
    assert compress(np.array(mask, bool)) == text


def test_polygons_hold_the_pixels_whose_middle_is_inside() -> None:
    """A square from 1 to 3, one from .6 to 1.4, which holds no middle, and one of a single pixel."""
    square = [1, 1, 3, 1, 3, 3, 1, 3]
    nothing = [0.6, 0.6, 1.4, 0.6, 1.4, 1.4, 0.6, 1.4]
    one = [3.4, 0.4, 3.6, 0.4, 3.6, 0.6, 3.4, 0.6]
    mask = read_segmentation([square, nothing, one], 4, 5).mask(4, 5)
    assert mask.astype(int).tolist() == [[0, 0, 0, 1, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_a_polygon_may_leave_the_photo() -> None:
    mask = read_segmentation([[-5, -5, 9, -5, 9, 1, -5, 1]], 2, 3).mask(2, 3)
    assert mask.astype(int).tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no polygon"),
        ([[1, 2, 3, 4]], "three or more corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three or more corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three or more corners"),
        ([{"x": 1}], "three or more corners"),
        (None, "neither polygons nor"),
        ({"size": [3, 4]}, "neither polygons nor"),
        ({"size": [4, 3], "counts": [12]}, r"size=\[4, 3\], the photo's is \[3, 4\]"),
        ({"size": [3, 4], "counts": [3, 4]}, "runs that make 3 x 4 pixels"),
        ({"size": [3, 4], "counts": [13, -1]}, "runs that make 3 x 4 pixels"),
        ({"size": [3, 4], "counts": [12.0]}, "neither whole numbers nor text"),
        ({"size": [3, 4], "counts": "X"}, "cut short"),
        ({"size": [3, 4], "counts": "é"}, "no compressed run lengths"),
        ({"size": [3, 4], "counts": "o" * 14}, "no compressed run lengths"),
    ],
)
def test_what_is_none(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_segmentation(value, 3, 4)
