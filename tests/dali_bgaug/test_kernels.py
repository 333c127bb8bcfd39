"""The compiled kernels: literal values where they can be told by hand, and the loader's views by kernels held
against its views by DALI's operators."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dali_bgaug.graph import kernels
from dali_bgaug.shards import pack_mask
from pipelines import LoaderConfig, build_loader


def _row(window: list[float], **values: float) -> np.ndarray:
    """What a view is made with: this window, nothing else changed."""
    row = np.zeros(kernels.LENGTH, np.float32)
    row[kernels.WINDOW : kernels.COLOURED] = window
    row[kernels.SCALE : kernels.SHIFT] = 1
    for name, value in values.items():
        row[getattr(kernels, name)] = value
    return row


def _view(photo: np.ndarray, size: int, row: np.ndarray) -> np.ndarray:
    out = np.full((size, size, 3), np.nan, np.float32)
    kernels.make_view(out, photo, row)
    return out


def _ramp(height: int, width: int) -> np.ndarray:
    """A photo whose pixels say where they are: red the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def test_a_window_of_the_views_size_is_copied_and_mirrored() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    part = photo[8:24, 10:26]
    window = [8 / 40, 10 / 50, 24 / 40, 26 / 50]
    np.testing.assert_allclose(_view(photo, 16, _row(window)), part, atol=1e-3)
    mirrored = [window[0], window[3], window[2], window[1]]
    np.testing.assert_allclose(_view(photo, 16, _row(mirrored)), part[:, ::-1], atol=1e-3)


@pytest.mark.parametrize("size", [4, 5, 8, 100])
def test_a_ramp_stays_a_ramp(size: int) -> None:
    """Pixel centres: a view of `size` pixels of 40 sees the ramp at (i + .5) * 40 / size - .5."""
    found = _view(_ramp(60, 80), size, _row([10 / 60, 20 / 80, 50 / 60, 60 / 80]))
    places = (np.arange(size) + 0.5) * 40 / size - 0.5
    np.testing.assert_allclose(found[..., 0], np.broadcast_to(20 + places, (size, size)), atol=0.02)
    np.testing.assert_allclose(found[..., 1], np.broadcast_to(10 + places[:, None], (size, size)), atol=0.02)
    assert not found[..., 2].any()


def test_whole_photos_are_resized_like_pil() -> None:
    """Where no pixel beyond the photo is asked for, the filter is PIL's."""
    photo = np.random.default_rng(1).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    expected = Image.fromarray(photo).resize((24, 24), Image.Resampling.BILINEAR)
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(
        _view(photo, 24, _row([0, 0, 1, 1]))[inner], np.asarray(expected)[inner], atol=1.0
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 3)])
def test_the_smallest_photos(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 77, np.uint8)
    np.testing.assert_allclose(_view(photo, 9, _row([0, 0, 1, 1], BLURRED=1, SIGMA=2.0)), 77, atol=1e-3)


def test_colours_blur_solarize_and_normalising_in_this_order() -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[:, :4], photo[:, 4:] = (200, 100, 50), (100, 60, 20)
    row = _row([0, 0, 1, 1], COLOURED=1)
    # Red from green; green from red, doubled and so clipped; blue from the mean red: (200 + 100) / 2.
    row[kernels.MATRIX : kernels.OFFSET] = [0, 1, 0, 2, 0, 0, 0, 0, 0]
    row[kernels.OFFSET : kernels.BLURRED] = [0, 0, 0, 0, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(_view(photo, 8, row)[0, [0, 7]], [[100, 255, 150], [60, 200, 150]], atol=1e-3)
    row[kernels.SOLARIZED] = 1
    np.testing.assert_allclose(_view(photo, 8, row)[0, [0, 7]], [[100, 0, 105], [60, 55, 105]], atol=1e-3)
    row[kernels.SCALE : kernels.SHIFT], row[kernels.SHIFT : kernels.REPLACED] = [1, 2, 3], [-100, 0, 1]
    np.testing.assert_allclose(_view(photo, 8, row)[0, [0, 7]], [[0, 0, 316], [-40, 110, 316]], atol=1e-2)


def test_a_blurred_point_is_a_gaussian() -> None:
    photo = np.zeros((31, 31, 3), np.uint8)
    photo[15, 15] = 255
    found = _view(photo, 31, _row([0, 0, 1, 1], BLURRED=1, SIGMA=1.5))[..., 0]
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)  # to 3 sigma, rounded up
    line /= line.sum()
    expected = np.zeros((31, 31))
    expected[10:21, 10:21] = 255 * np.outer(line, line)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_blur_wider_than_the_view_keeps_what_is_even() -> None:
    photo = np.full((20, 20, 3), 90, np.uint8)
    np.testing.assert_allclose(
        _view(photo, 8, _row([0, 0, 1, 1], BLURRED=1, SIGMA=9.0)), np.full((8, 8, 3), 90), atol=1e-3
    )


def test_backgrounds_follow_the_mask_through_window_and_flip() -> None:
    mask = np.zeros((64, 64), bool)
    mask[16:32, 8:24] = True
    packed = np.frombuffer(pack_mask(mask), np.uint8)
    window = [0, 0, 0.5, 0.5]  # the first quarter, 32 x 32 of the mask
    front, behind = np.full((16, 16, 3), 1, np.float32), np.full((16, 16, 3), 2, np.float32)
    expected = np.full((16, 16), 2, np.float32)
    expected[8:16, 4:12] = 1
    out = np.empty_like(front)
    kernels.put_behind(out, front, behind, _row(window), packed)
    np.testing.assert_array_equal(out[..., 0], expected)
    mirrored = _row([0, 0.5, 0.5, 0], GREY=7.0)
    grey = front.copy()
    kernels.put_grey_behind(grey, mirrored, packed)
    np.testing.assert_array_equal(grey[..., 1], np.where(expected == 1, 1, 7)[:, ::-1])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("moco_v2", {"background": {"kind": "swaps", "p_pos": 0.5, "p_neg": 0.5, "negatives": 2}}),
        ("moco_v2", {"background": {"kind": "rm", "p_pos": 0.5}, "half": True}),
        ("byol", {"background": {"kind": "random", "p_pos": 0.5, "donor": "crop"}}),
        ("swav", {"background": {"kind": "random", "p_pos": 0.9, "donor": "none"}}),
        (
            "moco_v2",
            {
                "background": {
                    "kind": "swaps",
                    "p_pos": 0.5,
                    "matches": "key",
                    "distortion": {"rotate": 20.0, "shear": 5.0, "translate": 0.1, "flip_p": 0.3},
                }
            },
        ),
        ("supervised", {"background": {"kind": "rm", "p_pos": 1.0, "distortion": {"box": True}}}),
        ("moco_v2", {"background": {"kind": "random"}, "views": {"key": {"background": False}}}),
        ("supervised", {}),
    ],
)
def test_kernels_make_what_operators_make(textured: Path, method: str, options: dict[str, Any]) -> None:
    batches = []
    for compiled in (True, False):
        config = LoaderConfig(
            pipeline=method,
            shards=textured,
            batch_size=16,
            device="cpu",
            threads=2,
            crop={"fg_min": 0.1},
            compiled=compiled,
            **options,
        )
        with build_loader(config) as loader:
            batches.append({name: tensor.clone() for name, tensor in next(iter(loader)).items()})
    ours, theirs = batches
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        found = ours[name]
        assert (found.dtype, found.shape, found.stride()) == (
            expected.dtype,
            expected.shape,
            expected.stride(),
        )
        if not found.is_floating_point():
            assert torch.equal(found, expected)
            continue
        off = (found.float() - expected.float()).abs()
        # A pixel on an edge of the mask may fall to the other side: both round its place in float32.
        assert (off > (4e-3 if config.half else 1e-3)).float().mean() < 5e-4, name
    if "background" in options:
        assert ours["replaced"].float().mean() > 0
