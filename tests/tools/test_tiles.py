"""What masks and tiles are, pixel by pixel: box, shrinking, strips, tiled backgrounds."""

import numpy as np
import pytest

from tools.masks import foreground_box, shrink
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
    small = shrink(mask, 256)
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
