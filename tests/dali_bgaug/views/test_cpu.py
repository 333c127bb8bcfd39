"""The CPU renderer on jobs made by hand, whose images can be told by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dali_bgaug.views import table
from dali_bgaug.views.cpu import Buffers
from dali_bgaug.views.options import CropOptions
from dali_bgaug.views.plan import _draw_crop
from dali_bgaug.views.table import GREY, IMAGE, RENDERED, TILE
from tests.helpers.rendering import render


def _jobs(count: int, size: int, **values: Any) -> np.ndarray:
    """Jobs of photo 0, 1, …, each with its own mask."""
    jobs = table.new_jobs(count)
    jobs["size"] = size
    jobs["sample"] = jobs["frame"] = jobs["mask_of"] = np.arange(count)
    for name, value in values.items():
        jobs[name] = value
    return jobs


def _crop_boxes(*crop_boxes: Sequence[float]) -> np.ndarray:
    crops = np.zeros(len(crop_boxes), table.CROP)
    crops["crop_box"] = crop_boxes
    return crops


def _view(photo: np.ndarray, size: int, crop_box: Sequence[float] | None = None, **values: Any) -> np.ndarray:
    """The view of one photo, [size, size, 3]; all of it, or a crop box y0, x0, y1, x1 in pixels."""
    crops = None if crop_box is None else _crop_boxes(crop_box)
    return render(_jobs(1, size, **values), [photo], crops=crops)[0][0]


def _ramp(height: int, width: int) -> np.ndarray:
    """A photo whose pixels say where they are: red the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def _noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _flat(*levels: int, side: int = 8) -> list[np.ndarray]:
    return [np.full((side, side, 3), level, np.uint8) for level in levels]


LEFT = np.zeros((64, 64), bool)
LEFT[:, :32] = True
NOWHERE = np.zeros((64, 64), bool)


def test_a_crop_box_of_the_views_size_is_copied_and_mirrored() -> None:
    photo = _noise(0, 40, 50)
    part = photo[8:24, 10:26]
    np.testing.assert_allclose(_view(photo, 16, [8, 10, 24, 26]), part, atol=1e-3)
    np.testing.assert_allclose(_view(photo, 16, [8, 26, 24, 10]), part[:, ::-1], atol=1e-3)


@pytest.mark.parametrize("size", [4, 5, 8, 100])
def test_a_ramp_stays_a_ramp(size: int) -> None:
    """Pixel centres: a view of `size` pixels of 40 sees the ramp at (i + .5) * 40 / size - .5."""
    found = _view(_ramp(60, 80), size, [10, 20, 50, 60])
    places = (np.arange(size) + 0.5) * 40 / size - 0.5
    np.testing.assert_allclose(found[..., 0], np.broadcast_to(20 + places, (size, size)), atol=0.02)
    np.testing.assert_allclose(found[..., 1], np.broadcast_to(10 + places[:, None], (size, size)), atol=0.02)
    assert not found[..., 2].any()


def test_whole_photos_are_resized_like_pil() -> None:
    """Where no pixel beyond the photo is asked for, the filter is PIL's."""
    photo = _noise(1, 97, 131)
    expected = Image.fromarray(photo).resize((24, 24), Image.Resampling.BILINEAR)
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(_view(photo, 24)[inner], np.asarray(expected)[inner], atol=1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 3)])
def test_the_smallest_photos(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 77, np.uint8)
    np.testing.assert_allclose(_view(photo, 9, sigma=2.0), 77, atol=1e-3)


def test_a_tile_is_stretched_over_its_photos_frame() -> None:
    """Rows 8 to 24 and columns 10 to 26 of a frame of 40 x 50 are 4 to 12 and 5 to 13 of 20 x 25."""
    tile = _noise(2, 20, 25)
    crops = _crop_boxes([8, 10, 24, 26])
    [found], _ = render(_jobs(1, 8, source=TILE), [_noise(0, 40, 50)], tiles=[tile], crops=crops)
    np.testing.assert_allclose(found, tile[4:12, 5:13], atol=1e-3)


STRIPS = {
    "left": [6, 9, 20, 26, 0, 0, 31, 9],
    "right": [3, 0, 31, 22, 0, 22, 31, 21],
    "top": [8, 5, 31, 43, 0, 0, 8, 43],
    "bottom": [0, 0, 27, 40, 27, 0, 4, 43],
    "a corner's": [0, 0, 12, 12, 0, 12, 31, 31],
    "none": [0] * 8,
}
"""Box and strip in a photo of 31 x 43."""


@pytest.mark.parametrize("strip", STRIPS)
@pytest.mark.parametrize(
    "crop_box", [[0, 0, 31, 43], [0, 43, 31, 0], [2.5, 4.25, 28, 39], [7, 10, 9, 12], [10, 35, 30, 3]]
)
def test_a_tile_is_read_from_its_photo(strip: str, crop_box: list[float]) -> None:
    """By eight numbers or filled in by NumPy: the same to the bit, whole, flipped, cut and enlarged."""
    photo, geometry = _noise(3, 31, 43), np.array([STRIPS[strip]], np.int32)
    jobs, crops = _jobs(1, 16, source=TILE), _crop_boxes(crop_box)
    filled = photo.copy()
    y0, x0, y1, x1, top, left, high, wide = STRIPS[strip]
    for y in range(y0, y1):
        for x in range(x0, x1):
            filled[y, x] = photo[top + y % high, left + x % wide]
    expected, _ = render(jobs, [photo], tiles=[filled], crops=crops)
    found, _ = render(jobs, [photo], tiles=geometry, crops=crops)
    np.testing.assert_array_equal(found, expected)


def test_colours_blur_solarize_and_normalising_in_this_order() -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[:, :4], photo[:, 4:] = (200, 100, 50), (100, 60, 20)
    # Half as bright again is (255, 150, 75) and (150, 90, 30), of grey 137 on average; then half the
    # contrast, without fractions.
    look: dict[str, Any] = {"jittered": 1, "factor": [1.5, 0.5, 1, 0]}
    ends = np.s_[0, [0, 7]]
    expected = np.array([[196, 143, 106], [143, 113, 83]])
    np.testing.assert_allclose(_view(photo, 8, **look)[ends], expected, atol=1e-3)
    look["solarized"] = 1
    expected = np.array([[59, 112, 106], [112, 113, 83]])
    np.testing.assert_allclose(_view(photo, 8, **look)[ends], expected, atol=1e-3)
    look |= {"scale": [1, 2, 3], "shift": [-100, 0, 1]}
    expected = np.array([[-41, 224, 319], [12, 226, 250]])
    np.testing.assert_allclose(_view(photo, 8, **look)[ends], expected, atol=1e-2)


def test_blur_comes_between_colour_and_solarize() -> None:
    """Doubled, a point of 127 is 254; blurred, it is so little that solarizing changes nothing."""
    photo = np.zeros((31, 31, 3), np.uint8)
    photo[15, 15] = 127
    look = {"jittered": 1, "factor": [2, 1, 1, 0], "sigma": 1.5}
    blurred = _view(photo, 31, **look)
    assert 15 < blurred.max() < 20
    np.testing.assert_array_equal(_view(photo, 31, **look, solarized=1), blurred)


def test_a_blurred_point_is_a_gaussian() -> None:
    photo = np.zeros((31, 31, 3), np.uint8)
    photo[15, 15] = 255
    found = _view(photo, 31, sigma=1.5)[..., 0]
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)  # to 3 sigma, rounded up
    line /= line.sum()
    expected = np.zeros((31, 31))
    expected[10:21, 10:21] = 255 * np.outer(line, line)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_blur_wider_than_the_view_keeps_what_is_even() -> None:
    photo = np.full((20, 20, 3), 90, np.uint8)
    np.testing.assert_allclose(_view(photo, 8, sigma=9.0), np.full((8, 8, 3), 90), atol=1e-3)


def test_bits_are_the_mask() -> None:
    mask = np.random.default_rng(0).random((3, 64, 64)) < 0.5
    found, _ = render(_jobs(3, 64, background=GREY), _flat(255, 255, 255), mask)
    assert np.array_equal(found[..., 0] == 255, mask)


def test_a_composite_is_exact() -> None:
    """Jobs 0 to 3 lie behind jobs 4 to 7."""
    photos = [_noise(seed, 16, 16) for seed in range(8)]
    mask = np.random.default_rng(0).random((8, 16, 16)) < 0.5
    jobs = _jobs(8, 16)
    jobs["background"][4:], jobs["background_job"][4:] = RENDERED, np.arange(4)
    found, made = render(jobs, photos, np.repeat(np.repeat(mask, 4, axis=1), 4, axis=2), donors=4)
    assert np.array_equal(found[:4], photos[:4])
    assert np.array_equal(found[4:], np.where(mask[4:, ..., None], photos[4:], photos[:4]))
    assert made.composited.tolist() == [False] * 4 + [True] * 4


def test_backgrounds_follow_the_mask_through_crop_box_and_flip() -> None:
    """The photo is twice as wide as high, and so is the crop box; the mask is square."""
    mask = np.zeros((64, 64), bool)
    mask[16:32, 8:24] = True
    photo = np.full((40, 80, 3), 1, np.uint8)
    jobs = _jobs(3, 16, sample=[1, 0, 0], frame=0)
    jobs["background"], jobs["background_job"], jobs["grey"] = [0, RENDERED, GREY], 0, 7
    crops = _crop_boxes(
        [0, 0, 20, 40], [0, 0, 20, 40], [0, 40, 20, 0]
    )  # the first quarter, 32 x 32 of the mask
    expected = np.full((16, 16), 2, np.float32)
    expected[8:16, 4:12] = 1
    found, _ = render(jobs, [photo, *_flat(2)], [mask, mask], donors=1, crops=crops)
    np.testing.assert_allclose(found[1, ..., 0], expected, atol=1e-6)
    np.testing.assert_allclose(found[2, ..., 1], np.where(expected == 1, 1, 7)[:, ::-1], atol=1e-6)


def test_mask_crop_and_flip_agree_with_the_photo() -> None:
    """A photo whose pixels are its mask stays equal to its cropped mask, but within a pixel of an edge."""
    count = 24
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:256, 0:256]
    centre, radius = rng.uniform(80, 176, (2, count, 1, 1)), rng.uniform(30, 80, (2, count, 1, 1))
    inside = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1
    photos = np.repeat(inside[..., None].astype(np.uint8) * 255, 3, axis=3)
    jobs = _jobs(count, 96)
    _draw_crop(jobs, CropOptions(size=96), 256, np.random.default_rng(3))
    assert 5 < jobs["flip"].sum() < 19  # some are flipped
    views, _ = render(jobs, photos)
    jobs["background"] = GREY
    found = render(jobs, np.full_like(photos, 255), inside)[0].round()
    assert set(np.unique(found)) == {0, 255}
    certain = (views < 0.5) | (views > 254.5)
    assert certain.mean() > 0.93
    # Nearest neighbour: a pixel that an edge only grazes may fall to either side.
    assert (np.abs(views - found)[certain] > 1).mean() < 1e-3
    assert ((views > 127) != (found == 255)).mean() < 0.01


def test_only_where_foreground_is_seen() -> None:
    """Photo 1 has none, photo 2 none in its crop box; jobs 3 to 5 are the same and do not care."""
    jobs = _jobs(6, 8, frame=[0, 1, 2] * 2, sample=[0, 1, 2] * 2, background=GREY, grey=9)
    jobs["only_visible"] = [1, 1, 1, 0, 0, 0]
    jobs["crop"], jobs["resize"] = [table.WHOLE, table.WHOLE, table.CENTRAL] * 2, 16
    masks = [LEFT, NOWHERE, LEFT & (np.arange(64) < 8)]
    found, made = render(jobs, _flat(1, 2, 3), masks)
    assert made.composited.tolist() == [True, False, False, True, True, True]
    middle = [image[:, [0, 7], 0].tolist() for image in found]
    assert middle == [[[left, right]] * 8 for left, right in ((1, 9), (2, 2), (3, 3), (1, 9), (9, 9), (9, 9))]


def test_coupled_to_another_jobs_background() -> None:
    """Jobs 0 to 3 are keys, 4 to 7 negatives of them, the last of which is of no background at all."""
    jobs = _jobs(8, 8, sample=0, frame=[0, 0, 1, 0] * 2, grey=9, only_visible=1)
    jobs["background"] = [GREY, 0, GREY, GREY, GREY, GREY, GREY, 0]
    jobs["mask_of"] = [0, 1, 2, 3, 0, 0, 0, 0]
    jobs["coupled_to"] = [-1] * 4 + [0, 1, 2, 3]
    _, made = render(jobs, _flat(1, 1), [LEFT, NOWHERE])
    assert made.composited.tolist() == [True, False, False, True, True, False, False, False]


def test_a_background_before_takes_part_in_the_look() -> None:
    """Contrast 0: everything takes the mean, of a view of 50 on the left and 100 on the right."""
    look = {"jittered": 1, "factor": [1, 0, 1, 0], "scale": 2, "shift": 1}
    jobs = _jobs(4, 8, frame=0, grey=100, **look)
    jobs["background"], jobs["before"] = [GREY, GREY, RENDERED, RENDERED], [1, 0, 1, 0]
    jobs["sample"], jobs["background_job"] = 0, 4
    jobs = np.concatenate([_jobs(1, 8, sample=1, frame=0), jobs])
    jobs["background_job"] = 0
    found, _ = render(jobs, _flat(50, 100), [LEFT, LEFT], donors=1)
    assert [image[0, [0, 7], 0].round(3).tolist() for image in found] == [
        [100, 100],
        [151, 151],  # 2 * 75 + 1
        [101, 201],  # 2 * 50 + 1, and 2 * 100 + 1: normalised last
        [151, 151],
        [101, 201],
    ]


def test_turns_are_numpys() -> None:
    jobs = _jobs(5, 12, sample=[0, 0, 0, 0, 0], source=[0] + [IMAGE] * 4, turns=[0, 0, 1, 2, 3])
    found, _ = render(jobs, [_noise(5, 30, 20)] * 5, copies=4)
    for turns in range(4):
        assert np.array_equal(found[1 + turns], np.rot90(found[0], turns))


def test_a_copy_lies_over_another_image() -> None:
    """A matched negative: the key of photo 1 in the query's foreground, the finished query around it."""
    scale = {"scale": 0.5, "shift": 3}
    jobs = np.concatenate([_jobs(2, 8, **scale), _jobs(1, 8, source=IMAGE, background=RENDERED)])
    jobs["sample"][2], jobs["background_job"][2], jobs["mask_of"][2] = 1, 0, 0
    found, made = render(jobs, _flat(10, 20), [LEFT, NOWHERE], copies=1)
    assert [image[0, [0, 7], 0].round(3).tolist() for image in found] == [[8, 8], [13, 13], [13, 8]]
    assert made.composited.tolist() == [False, False, True]


def test_images_of_no_slot_lie_behind_others() -> None:
    jobs = _jobs(6, 8, sample=[0, 1, 2] * 2, frame=[0, 1, 2] * 2, slot=[-1] * 3 + [0] * 3)
    jobs["background"][3:], jobs["background_job"][3:] = RENDERED, [2, 0, 1]
    found, _ = render(jobs, _flat(1, 2, 3), [LEFT] * 3, donors=3)
    assert [image[0, [0, 7], 0].tolist() for image in found[3:]] == [[1, 3], [2, 1], [3, 2]]


def test_half_is_the_same_rounded() -> None:
    jobs, photos = _jobs(3, 16, scale=1 / 58, shift=-2), [_noise(seed, 40, 30) for seed in range(3)]
    half, whole = (render(jobs, photos, half=half)[0] for half in (True, False))
    assert (half.dtype, whole.dtype) == (np.float16, np.float32)
    assert np.array_equal(half, whole.astype(np.float16))


def test_the_number_of_threads_changes_nothing() -> None:
    jobs, photos = _jobs(40, 16, sigma=1.0), [_noise(seed, 40, 30) for seed in range(40)]
    _draw_crop(jobs, CropOptions(size=16), 256, np.random.default_rng(0))
    one, many = (render(jobs, photos, threads=threads)[0] for threads in (1, 5))
    assert np.array_equal(one, many)


@pytest.mark.parametrize(
    "part",
    [lambda whole: whole, lambda whole: whole.movedim(-1, 0), lambda whole: whole[1:], torch.Tensor.numpy],
)
def test_memory_is_used_again_once_nobody_holds_a_tensor_of_it(part: Callable[[torch.Tensor], Any]) -> None:
    buffers = Buffers()
    whole = buffers.take((2, 3))
    assert (whole.shape, whole.dtype) == ((2, 3), torch.float32)
    address, held = whole.data_ptr(), part(whole)
    del whole
    assert address not in [buffers.take((2, 3)).data_ptr() for _ in range(3)]
    del held
    taken = [buffers.take(shape) for shape in ((6, 1), (3, 2), (2, 4))]
    assert address in [one.data_ptr() for one in taken[:2]]  # whatever the shape, of as many values
    assert len({one.data_ptr() for one in taken}) == 3
