"""What masks and tiles are, pixel by pixel: box, shrinking, strips, tiled backgrounds."""

import numpy as np
import pytest

from tools.detectors.base import scale
from tools.masks import foreground_box
from tools.tiles import background_strip, dilate, tiled_background


def test_threshold_is_on_saliency() -> None:
    saliency = np.zeros((10, 20), np.uint8)
    saliency[2:5, 3:9] = 229  # .898
    assert foreground_box(saliency, 0.9) == (0, 0, 0, 0)
    saliency[3, 4:6] = 230  # .902
    assert foreground_box(saliency, 0.9) == (4, 3, 6, 4)


def test_a_binary_mask_keeps_its_edge_when_shrunk() -> None:
    mask = np.zeros((500, 500), np.uint8)
    mask[101:399, 101:399] = 255
    small = scale(mask, (256, 256))
    assert set(np.unique(small)) == {0, 255}
    assert (small >= 0.9 * 255).mean() == pytest.approx((298 / 500) ** 2, rel=0.01)


CASES = {
    # box, size -> strip: the larger area; left only if wider, top only if higher
    "right": ((20, 20, 30, 80), (100, 100), (33, 0, 100, 100)),
    "left": ((70, 20, 90, 80), (100, 100), (0, 0, 67, 100)),
    "bottom": ((10, 10, 90, 40), (100, 100), (0, 43, 100, 100)),
    "top": ((10, 70, 90, 90), (100, 100), (0, 0, 100, 67)),
    "equal sides take the right": ((40, 0, 60, 100), (100, 100), (63, 0, 100, 100)),
    "too thin": ((8, 8, 92, 92), (100, 100), None),
    "thin but wide enough": ((0, 0, 89, 100), (100, 100), (92, 0, 100, 100)),
}


@pytest.mark.parametrize("case", CASES)
def test_strips(case: str) -> None:
    box, size, strip = CASES[case]
    assert background_strip(box, size) == strip


@pytest.mark.parametrize("seed", range(30))
def test_tiles_hold_no_foreground_and_leave_the_rest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(x) for x in rng.integers(40, 200, 2))
    x0, y0 = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
    box = (x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1)))
    photo = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    photo[box[1] : box[3], box[0] : box[2]] = 255
    tile = tiled_background(photo, box, 0)
    dx0, dy0, dx1, dy1 = dilate(box, (width, height))
    outside = np.ones((height, width), bool)
    outside[dy0:dy1, dx0:dx1] = False
    assert np.array_equal(tile[outside], photo[outside])
    strip = background_strip(box, (width, height))
    if strip is None:
        return
    assert not (tile == 255).all(axis=2).any()
    sx0, sy0, sx1, sy1 = strip
    inside = tile[dy0:dy1, dx0:dx1].reshape(-1, 3)
    colours = {tuple(c) for c in photo[sy0:sy1, sx0:sx1].reshape(-1, 3).tolist()}
    assert {tuple(c) for c in inside.tolist()} <= colours


def test_a_strip_repeats_on_a_grid_from_the_corner() -> None:
    photo = np.zeros((20, 60, 3), np.uint8)
    photo[..., 0] = np.arange(60)
    tile = tiled_background(photo, (25, 0, 57, 20), 0)  # dilated: 22 .. 60; the left strip is 22 wide
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
        expected = _by_the_rule(photo, dilate(box, size))
        assert (background_strip(box, size) is None) == (expected is None)
        tile = tiled_background(photo, box, 0)
        if expected is not None:
            assert np.array_equal(tile, expected), box
        else:
            inside = np.zeros((height, width), bool)
            x0, y0, x1, y1 = dilate(box, size)
            inside[y0:y1, x0:x1] = True
            assert np.array_equal(tile[~inside], photo[~inside])
    assert np.array_equal(photo, before)  # nothing is written into the photo itself


def test_in_painting_shows_nothing_of_the_foreground() -> None:
    """No strip is left, but a rim of seven pixels: a white object before blue becomes blue."""
    photo = np.full((90, 90, 3), (20, 40, 200), np.uint8)
    photo[10:80, 10:80] = 255
    tile = tiled_background(photo, (10, 10, 80, 80), 2)
    assert np.abs(tile.astype(int) - [20, 40, 200]).max() <= 8  # the blur works in whole levels
    whole = tiled_background(np.full((30, 30, 3), (1, 2, 3), np.uint8), (0, 0, 30, 30), 2)
    assert (whole == [1, 2, 3]).all()


def test_an_empty_mask_leaves_the_photo() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert np.array_equal(tiled_background(photo, (0, 0, 0, 0), 1), photo)
