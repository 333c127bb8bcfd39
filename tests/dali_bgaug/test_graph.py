"""Graph pieces on constructed images, on the CPU backend."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

from dali_bgaug.graph import background, masks, photometric
from dali_bgaug.graph.context import Context
from dali_bgaug.graph.crop import Window, crop
from dali_bgaug.shards import pack_mask
from dali_bgaug.windows import UNIFORMS, CropOptions, choose_windows

DATA = Path(__file__).parents[1] / "data"


def _run(function: Any, *arrays: np.ndarray, layouts: dict[int, str] | None = None) -> list[np.ndarray]:
    """Run a graph piece on arrays whose first axis is the batch."""

    @pipeline_def(batch_size=len(arrays[0]), num_threads=2, device_id=None, enable_conditionals=True)
    def define() -> Any:
        nodes = [
            fn.external_source(source=[array], cycle=True, batch=True, layout=(layouts or {}).get(number))
            for number, array in enumerate(arrays)
        ]
        return function(*nodes)

    outputs = define().run()
    return [np.asarray(output.as_tensor()) for output in outputs]


def _windows(count: int) -> np.ndarray:
    uniforms = np.random.default_rng(3).random((count, 1, UNIFORMS), np.float32)
    return choose_windows(uniforms, np.full(count, 256), np.full(count, 256), [CropOptions()])[:, 0]


def test_mask_crop_and_flip_agree_with_the_photo() -> None:
    """A photo whose pixels are its mask stays equal to its cropped mask, but within a pixel of an edge."""
    count = 24
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:256, 0:256]
    centre, radius = rng.uniform(80, 176, (2, count, 1, 1)), rng.uniform(30, 80, (2, count, 1, 1))
    inside = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1
    packed = np.stack([np.frombuffer(pack_mask(mask), np.uint8) for mask in inside])
    photo = np.repeat(inside[..., None].astype(np.uint8) * 255, 3, axis=3)
    window = _windows(count)
    assert 5 < (window[:, 1] > window[:, 3]).sum() < 19  # some are flipped

    def piece(photo: Any, packed: Any, start: Any, end: Any) -> Any:
        view = Window(start, end)
        return crop(photo, view, 96), masks.view_mask(packed, 256, view, 96, "cpu")

    views, found = _run(
        piece, photo, packed, *map(np.ascontiguousarray, (window[:, :2], window[:, 2:])), layouts={0: "HWC"}
    )
    assert set(np.unique(found)) == {0, 1}
    certain = (views < 0.5) | (views > 254.5)
    assert certain.mean() > 0.93
    expected = np.broadcast_to(found * 255, views.shape)
    # Nearest neighbour: a pixel that an edge only grazes may fall to either side.
    assert (np.abs(views - expected)[certain] > 1).mean() < 1e-3
    assert ((views[..., 0] > 127) != (found[..., 0] == 1)).mean() < 0.01


def test_unpacked_bits_are_the_mask() -> None:
    mask = np.random.default_rng(0).random((3, 64, 64)) < 0.5
    packed = np.stack([np.frombuffer(pack_mask(one), np.uint8) for one in mask])
    [found] = _run(lambda node: masks.unpack(node, 64, "cpu"), packed)
    assert np.array_equal(found[..., 0], mask)


def test_composite_is_exact() -> None:
    rng = np.random.default_rng(0)
    front, behind = rng.integers(0, 256, (2, 4, 16, 16, 3)).astype(np.float32)
    mask = rng.integers(0, 2, (4, 16, 16, 1), dtype=np.uint8)
    [found] = _run(background.composite, front, behind, mask)
    assert np.array_equal(found, np.where(mask == 1, front, behind))


PIL_CASES = {
    "pil_brightness_1.3": (1.3, 1.0, 1.0, 0.0),
    "pil_contrast_1.4": (1.0, 1.4, 1.0, 0.0),
    "pil_saturation_1.2": (1.0, 1.0, 1.2, 0.0),
}


def _colour(image: np.ndarray, factors: tuple[float, float, float, float]) -> np.ndarray:
    matrix, offset = photometric.colour_matrix(*(np.array([factor]) for factor in factors))
    [found] = _run(
        lambda view, m, o: photometric.colour(view, m, o, "cpu"),
        image[None].astype(np.float32),
        matrix,
        offset,
        layouts={0: "HWC"},
    )
    return found[0].round().astype(int)


@pytest.mark.parametrize("case", PIL_CASES)
def test_colour_is_pils(case: str) -> None:
    """PIL truncates and rounds the mean grey; more than a level and a half would be another formula."""
    reference = np.load(DATA / "aug_ops.npz")
    difference = np.abs(_colour(reference["img_u8"], PIL_CASES[case]) - reference[case].astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.7


def test_grayscale_is_pils() -> None:
    reference = np.load(DATA / "aug_ops.npz")
    found = _colour(reference["img_u8"], (1.0, 1.0, 0.0, 0.0))
    assert np.abs(found - reference["pil_gray"].astype(int)[..., None]).max() <= 1


def test_hue_is_near_pils() -> None:
    """A linear map is not HSV's hexagon: on these saturated colours it is 12.0 levels off, doing nothing
    16.2."""
    reference = np.load(DATA / "aug_ops.npz")
    image, expected = reference["img_u8"].astype(int), reference["pil_hue_+0.1"].astype(int)
    found = _colour(reference["img_u8"], (1.0, 1.0, 1.0, 0.1))
    assert np.abs(found - expected).mean() < 0.78 * np.abs(image - expected).mean()


def test_hue_maps() -> None:
    """No shift and a whole turn change nothing; grey stays; what photos are made of, skin and sky, comes near
    HSV's colours."""
    maps = photometric.hue_matrices(np.array([0.0, 1.0, 0.08, -0.08, 0.5]))
    assert np.abs(maps[:2] - np.eye(3)).max() < 1e-6
    assert np.abs(maps @ np.ones(3) - 1).max() < 1e-6
    skin, sky = np.array([224, 172, 105]), np.array([112, 160, 215])
    for colour in (skin, sky):
        for number, shift in ((2, 0.08), (3, -0.08)):
            hue, saturation, value = colorsys.rgb_to_hsv(*colour / 255)
            expected = 255 * np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
            assert np.abs(maps[number] @ colour - expected).max() < 0.4 * np.abs(colour - expected).max()


@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
def test_blur_is_near_pils(sigma: float) -> None:
    """PIL approximates the Gaussian by boxes; the photo's border is extended differently."""
    reference = np.load(DATA / "aug_ops.npz")
    [found] = _run(
        lambda view: fn.gaussian_blur(view, sigma=sigma),
        reference["img_u8"][None].astype(np.float32),
        layouts={0: "HWC"},
    )
    difference = np.abs(found[0] - reference[f"pil_blur_radius{sigma}"].astype(int))[6:-6, 6:-6]
    assert difference.mean() < 1.5


def test_solarize_is_deepminds() -> None:
    reference = np.load(DATA / "aug_ops.npz")
    image = reference["img_u8"].astype(np.float32)
    look = photometric.Look(None, None, None, None, None, None)

    def piece(view: Any, coin: Any) -> Any:
        return photometric.apply_look(view, look._replace(solarized=coin), "cpu")

    coins = np.array([True, False])
    [found] = _run(piece, np.stack([image, image]), coins, layouts={0: "HWC"})
    assert np.array_equal(found[0], reference["pil_solarize_128"])
    assert np.array_equal(found[1], image)


def test_random_numbers_depend_on_name_rank_and_iteration_only() -> None:
    def numbers(rank: int, name: str, extra: bool = False, origin: int = 0) -> list[np.ndarray]:
        context = Context("cpu", 7, rank, 4, origin)

        @pipeline_def(batch_size=4, num_threads=1, device_id=None)
        def define() -> Any:
            if extra:
                context.draw("another", lambda rng, _: [rng.random(4).astype(np.float32)])
            [node] = context.draw(name, lambda rng, _: [rng.random(4).astype(np.float32)])
            return fn.cast(node, dtype=types.FLOAT)

        pipeline = define()
        return [np.asarray(pipeline.run()[0].as_tensor()) for _ in range(3)]

    first = numbers(0, "a")
    assert len({array.tobytes() for array in first}) == 3
    assert all(np.array_equal(x, y) for x, y in zip(first, numbers(0, "a", extra=True), strict=True))
    for other in (numbers(1, "a"), numbers(0, "b"), numbers(0, "a", origin=3)):
        assert not any(np.array_equal(x, y) for x, y in zip(first, other, strict=True))
