"""Tiled backgrounds, pixel by pixel: boxes, strips, what fills them."""

import numpy as np
import pytest

from dali_bgaug.tiles import dilate, fill, fits, rescale, tile_geometry

CASES = {
    # box, (width, height) -> strip as top, left, high, wide: the larger area; left only if wider, top only if
    # higher
    "right": ((20, 20, 30, 80), (100, 100), [0, 33, 100, 67]),
    "left": ((70, 20, 90, 80), (100, 100), [0, 0, 100, 67]),
    "bottom": ((10, 10, 90, 40), (100, 100), [43, 0, 57, 100]),
    "top": ((10, 70, 90, 90), (100, 100), [0, 0, 67, 100]),
    "equal sides take the right": ((40, 0, 60, 100), (100, 100), [0, 63, 100, 37]),
    "thin but wide enough": ((0, 0, 89, 100), (100, 100), [0, 92, 100, 8]),
}


def _geometry(box: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    return tile_geometry(np.array([box]), np.array([size]))[0]


@pytest.mark.parametrize("case", CASES)
def test_strips(case: str) -> None:
    box, size, strip = CASES[case]
    assert _geometry(box, size)[4:].tolist() == strip


def test_a_box_is_dilated_within_its_photo() -> None:
    assert _geometry((20, 1, 30, 99), (100, 100))[:4].tolist() == [0, 17, 100, 33]


def test_no_strip_is_all_zeros() -> None:
    geometry = tile_geometry(np.array([[8, 8, 92, 92], [20, 20, 30, 80]]), np.array([[100, 100]] * 2))
    assert geometry.tolist() == [[0] * 8, [17, 17, 83, 33, 0, 33, 100, 67]]


def test_a_strip_repeats_on_a_grid_from_the_corner() -> None:
    photo = np.zeros((20, 60, 3), np.uint8)
    photo[..., 0] = np.arange(60)
    tile = fill(photo, _geometry((25, 0, 57, 20), (60, 20)))  # dilated: 22 .. 60; the left strip is 22 wide
    assert tile[0, :22, 0].tolist() == list(range(22))
    assert tile[0, 22:44, 0].tolist() == list(range(22))
    assert tile[5, 44:60, 0].tolist() == list(range(16))


def _by_the_rule(photo: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray | None:
    """The rule of ImageNet-9's Only-BG-T, pixel by pixel, as it is written down; None without a usable strip.

    box: of the foreground, as dilated.
    """
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = box
    left, right, top, bottom = x0, width - x1, y0, height - y1
    candidates = []
    if max(left, right) >= max(8, 0.05 * width):
        candidates.append((max(left, right) * height, "side"))
    if max(top, bottom) >= max(8, 0.05 * height):
        candidates.append((max(top, bottom) * width, "flat"))
    if not candidates:
        return None
    _, kind = max(candidates, key=lambda candidate: candidate[0])
    if len(candidates) == 2 and candidates[0][0] == candidates[1][0]:
        kind = "flat"
    if kind == "side":
        strip = photo[:, :left] if left > right else photo[:, x1:]
    else:
        strip = photo[:top] if top > bottom else photo[y1:]
    result = photo.copy()
    for y in range(y0, y1):
        for x in range(x0, x1):
            result[y, x] = strip[y % strip.shape[0], x % strip.shape[1]]
    return result


def _boxes(width: int, height: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Random boxes, boxes on every border, with margins of one pixel, of one pixel, of all."""
    x, y = width // 3, height // 3
    boxes = [
        (0, y, 2 * x, 2 * y),
        (x, 0, 2 * x, 2 * y),
        (x, y, width, 2 * y),
        (x, y, 2 * x, height),
        (0, 0, width, y),
        (0, 0, x, height),
        (1, 1, width - 1, height - 1),
        (1, 0, width, height),
        (0, 0, width, height - 1),
        (0, 0, width, height),
        (x, y, x + 1, y + 1),
        (0, 0, 1, 1),
        (width - 1, height - 1, width, height),
    ]
    for _ in range(12):
        x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
        boxes.append((x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1))))
    return boxes


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (9, 70)])
def test_tiles_follow_the_rule_to_the_pixel(size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(width)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = photo.copy()
    for box in _boxes(width, height, rng):
        geometry = _geometry(box, size)
        dilated = dilate(np.array([box]), np.array([size]))[0]
        expected = _by_the_rule(photo, tuple(dilated.tolist()))
        assert geometry.any() == (expected is not None)
        assert np.array_equal(fill(photo, geometry), photo if expected is None else expected), box
        assert fits(geometry[None], np.array([[height, width]])).all()
    assert np.array_equal(photo, before)  # nothing is written into the photo itself


@pytest.mark.parametrize("seed", range(20))
def test_a_rescaled_tile_shows_no_foreground(seed: int) -> None:
    """Of a white foreground in a photo made smaller by whole pixels, nothing is left in the smaller tile."""
    rng = np.random.default_rng(seed)
    factor, small = int(rng.integers(2, 5)), rng.integers(30, 60, 2)
    width, height = (int(side) * factor for side in small)
    x0, y0 = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
    box = (x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1)))
    geometry, now = _geometry(box, (width, height)), (width // factor, height // factor)
    if not geometry.any():
        return
    photo = np.zeros((height, width, 1))
    photo[box[1] : box[3], box[0] : box[2]] = 1
    photo = photo.reshape(now[1], factor, now[0], factor, 1).mean(axis=(1, 3))
    rescaled = rescale(geometry, (width, height), now)
    assert fits(rescaled[None], np.array([now[::-1]])).all()
    assert not fill(photo, rescaled).any()
    assert rescale(geometry, (width, height), (width, height)).tolist() == geometry.tolist()


RESCALED = {
    # geometry of 400 x 300 -> of 200 x 150, of 133 x 100 (rounded outwards), of 32 x 24
    "right": (
        [97, 97, 203, 203, 0, 203, 300, 197],
        [48, 48, 102, 102, 0, 102, 150, 98],
        [32, 32, 68, 68, 0, 68, 100, 65],
        [7, 7, 17, 17, 0, 17, 24, 15],
    ),
    "left": (
        [97, 297, 203, 353, 0, 0, 300, 297],
        [48, 148, 102, 177, 0, 0, 150, 148],
        [32, 98, 68, 118, 0, 0, 100, 98],
        [7, 23, 17, 29, 0, 0, 24, 23],
    ),
    "bottom": (
        [0, 40, 101, 399, 101, 0, 199, 400],
        [0, 20, 51, 200, 51, 0, 99, 200],
        [0, 13, 34, 133, 34, 0, 66, 133],
        [0, 3, 9, 32, 9, 0, 15, 32],
    ),
    "top": (
        [199, 40, 300, 399, 0, 0, 199, 400],
        [99, 20, 150, 200, 0, 0, 99, 200],
        [66, 13, 100, 133, 0, 0, 66, 133],
        [15, 3, 24, 32, 0, 0, 15, 32],
    ),
    "none": ([0] * 8, [0] * 8, [0] * 8, [0] * 8),
}


@pytest.mark.parametrize("case", RESCALED)
def test_geometry_of_a_smaller_photo(case: str) -> None:
    geometry, *expected = RESCALED[case]
    for now, found in zip([(200, 150), (133, 100), (32, 24)], expected, strict=True):
        assert rescale(np.array(geometry, np.int32), (400, 300), now).tolist() == found


def test_a_photo_too_small_for_any_strip_lends_none() -> None:
    """A band of 8 of 100 rows; two rows are left."""
    geometry = _geometry((0, 0, 2000, 89), (2000, 100))
    assert geometry.tolist() == [0, 0, 92, 2000, 92, 0, 8, 2000]
    assert rescale(geometry, (2000, 100), (400, 20)).tolist() == [0, 0, 19, 400, 19, 0, 1, 400]
    assert rescale(geometry, (2000, 100), (40, 2)).tolist() == [0] * 8


@pytest.mark.parametrize("seed", range(4))
def test_strips_are_apart_from_boxes(seed: int) -> None:
    """Also in photos that were made smaller, down to a pixel; and a box still covers what it covered."""
    rng = np.random.default_rng(seed)
    for _ in range(500):
        size = tuple(rng.integers(9, 3000, 2).tolist())
        low = rng.integers(0, size)
        box = (*low.tolist(), *rng.integers(low + 1, np.add(size, 1)).tolist())
        side = int(rng.integers(1, max(size) + 1))
        now = tuple(max(1, round(length * side / max(size))) for length in size)
        geometry = _geometry(box, size)
        for its, (width, height) in ((geometry, size), (rescale(geometry, size, now), now)):
            y0, x0, y1, x1, top, left, high, wide = its.tolist()
            if not its.any():
                continue
            assert fits(its[None], np.array([[height, width]]))[0]
            assert x1 <= left or left + wide <= x0 or y1 <= top or top + high <= y0
            assert x0 / width <= box[0] / size[0] and box[2] / size[0] <= x1 / width
            assert y0 / height <= box[1] / size[1] and box[3] / size[1] <= y1 / height


@pytest.mark.parametrize(
    "geometry",
    [
        [-1, 0, 5, 5, 0, 6, 10, 4],
        [0, 0, 11, 5, 0, 6, 10, 4],
        [0, 0, 5, 5, 0, 6, 10, 15],
        [0, 0, 5, 5, 0, 6, 0, 4],
        [6, 0, 5, 5, 0, 6, 10, 4],
        [0, 0, 5, 5, 2**31 - 1, 6, 2**31 - 1, 4],
    ],
)
def test_what_reaches_beyond_a_photo_does_not_fit(geometry: list[int]) -> None:
    assert not fits(np.array([geometry], np.int32), np.array([[10, 20]]))[0]
    assert fits(np.array([[0, 0, 5, 5, 0, 6, 10, 4], [0] * 8], np.int32), np.array([[10, 20]] * 2)).all()
