"""The yardstick's pieces against recorded results of PIL and torchvision."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms.functional as F
from PIL import Image

from dali_bgaug.views.options import CropOptions, DistortionOptions, PhotometricOptions
from pipelines.torchvision_views import (
    Photometric,
    apply_photometric,
    composite,
    crop_mask,
    crop_view,
    decode,
    distort_mask,
    draw_crop_box,
    draw_photometric,
    foreground_inside,
)

DATA = Path(__file__).parents[1] / "data"
WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("pil_brightness_1.3", Photometric(brightness=1.3)),
        ("pil_contrast_1.4", Photometric(contrast=1.4)),
        ("pil_saturation_1.2", Photometric(saturation=1.2)),
        ("pil_hue_+0.1", Photometric(hue=0.1)),
        ("pil_blur_radius0.1", Photometric(sigma=0.1)),
        ("pil_blur_radius2.0", Photometric(sigma=2.0)),
        ("pil_solarize_128", Photometric(solarize=True)),
        ("pil_gray", Photometric(grayscale=True)),
    ],
)
def test_photometric_steps_are_pils(name: str, one: Photometric) -> None:
    with np.load(DATA / "aug_ops.npz") as recorded:
        image, expected = recorded["img_u8"], recorded[name]
    found = np.asarray(apply_photometric(Image.fromarray(image), one))
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(found, expected)


def test_a_look_goes_jitter_grayscale_blur_solarize() -> None:
    with np.load(DATA / "aug_ops.npz") as recorded:
        image = Image.fromarray(recorded["img_u8"])
    order = ("hue", "contrast", "brightness", "saturation")
    one = Photometric(1.2, 0.7, 1.3, -0.05, grayscale=True, sigma=1.5, solarize=True, order=order)
    expected = F.adjust_contrast(F.adjust_hue(image, -0.05), 0.7)
    expected = F.adjust_saturation(F.adjust_brightness(expected, 1.2), 1.3)
    for step in (Photometric(grayscale=True), Photometric(sigma=1.5), Photometric(solarize=True)):
        expected = apply_photometric(expected, step)
    np.testing.assert_array_equal(np.asarray(apply_photometric(image, one)), np.asarray(expected))


def test_drawn_looks_have_the_options_law() -> None:
    options, rng = PhotometricOptions(solarize_p=0.3, brightness=1.5), np.random.default_rng(0)
    drawn = [draw_photometric(options, rng) for _ in range(4000)]
    jittered = [one for one in drawn if one.hue]
    assert len(jittered) / 4000 == pytest.approx(0.8, abs=0.02)
    assert all(one.brightness == one.contrast == one.saturation == 1 for one in drawn if not one.hue)
    assert np.mean([one.grayscale for one in drawn]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([one.sigma is not None for one in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([one.solarize for one in drawn]) == pytest.approx(0.3, abs=0.03)
    for values, low, high in (
        ([one.brightness for one in jittered], 0, 2.5),
        ([one.contrast for one in jittered], 0.6, 1.4),
        ([one.hue for one in jittered], -0.1, 0.1),
        ([one.sigma for one in drawn if one.sigma is not None], 0.1, 2.0),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    orders = Counter(one.order for one in jittered)
    assert len(orders) == 24
    assert min(orders.values()) > 80


@pytest.mark.parametrize("case", ["500x375_s0.2-1", "500x375_s0.05-0.14", "1000x200_s0.2-1"])
def test_crop_boxes_have_torchvisions_law(case: str) -> None:
    with np.load(DATA / "rrc.npz") as recorded:
        levels, expected = (
            recorded["quantile_levels"],
            {
                key: recorded[f"{case}/{key}"]
                for key in ("area_q", "logratio_q", "fallback_rate", "fallback_ijhw")
            },
        )
    size, scale = case.split("_s")
    width, height = map(int, size.split("x"))
    crop, rng = CropOptions(scale=tuple(map(float, scale.split("-")))), np.random.default_rng(1)
    crop_boxes = np.array([draw_crop_box(width, height, crop, None, rng) for _ in range(10_000)])
    h, w = (crop_boxes[:, 2] - crop_boxes[:, 0]) * height, (crop_boxes[:, 3] - crop_boxes[:, 1]) * width
    area = h * w / (width * height)
    np.testing.assert_allclose(h, h.round(), atol=1e-6)
    np.testing.assert_allclose(np.quantile(area, levels), expected["area_q"], atol=0.015)
    np.testing.assert_allclose(np.quantile(np.log(w / h), levels), expected["logratio_q"], atol=0.04)
    i, j, fallback_h, fallback_w = expected["fallback_ijhw"]
    central = [i / height, j / width, (i + fallback_h) / height, (j + fallback_w) / width]
    rate = np.isclose(crop_boxes, central).all(axis=1).mean()
    assert rate == pytest.approx(expected["fallback_rate"], abs=0.02)


@pytest.mark.parametrize("width, height", [(50, 400), (400, 50), (64, 64)])
def test_the_fallback_is_the_largest_central_crop_box(width: int, height: int) -> None:
    """A crop box as large as the photo but of an allowed ratio fits only into the square one."""
    crop_box = draw_crop_box(width, height, CropOptions(scale=(1.0, 1.0)), None, np.random.default_rng(0))
    expected = {50: (166 / 400, 0, 233 / 400, 1), 400: (0, 166 / 400, 1, 233 / 400), 64: WHOLE}[width]
    assert crop_box == pytest.approx(expected)


def test_crop_boxes_hold_fg_min_exactly() -> None:
    """The photo has 3 x 5 pixels to a pixel of the mask: every crop box holds its share, counted there."""
    mask = np.zeros((64, 64), bool)
    mask[5:20, 30:61] = True
    mask[50, 3] = True
    photo = np.repeat(np.repeat(mask, 3, axis=0), 5, axis=1)
    height, width = photo.shape
    crop, rng = CropOptions(scale=(0.05, 1.0), fg_min=0.6), np.random.default_rng(2)
    rejected = 0
    for _ in range(1000):
        crop_box = draw_crop_box(width, height, crop, mask, rng)
        y0, x0, y1, x1 = np.multiply(crop_box, [height, width, height, width]).round().astype(int)
        share = photo[y0:y1, x0:x1].sum() / photo.sum()
        assert foreground_inside(mask, crop_box) / mask.sum() == pytest.approx(share, abs=1e-12)
        free = draw_crop_box(width, height, crop, None, rng)
        rejected += foreground_inside(mask, free) < 0.6 * mask.sum()
        central = (y0, x0, y1, x1) == (0, (width - 256) // 2, height, (width + 256) // 2)
        assert share >= 0.6 or central
    assert rejected > 500  # so that the constraint was put to the test


@pytest.mark.parametrize("foreground", [False, True])
def test_an_empty_mask_accepts_anything_and_a_full_one_only_the_whole(foreground: bool) -> None:
    mask, rng = np.full((64, 64), foreground), np.random.default_rng(0)
    crop_boxes = [draw_crop_box(200, 200, CropOptions(fg_min=1.0), mask, rng) for _ in range(50)]
    assert (set(crop_boxes) == {WHOLE}) == foreground


def test_a_crop_is_crop_then_resize() -> None:
    rng = np.random.default_rng(3)
    photo = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    photo[:20], photo[:, :30] = 255, 255
    image, crop_box = Image.fromarray(photo), np.float32([20 / 90, 30 / 120, 77 / 90, 101 / 120])
    expected = Image.fromarray(photo[20:77, 30:101]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop_view(image, crop_box, False, 32), expected)
    np.testing.assert_array_equal(crop_view(image, crop_box, True, 32), np.asarray(expected)[:, ::-1])


def test_view_and_mask_are_cropped_alike() -> None:
    rng = np.random.default_rng(4)
    mask = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((64, 64))) > 128
    photo = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    for _ in range(20):
        crop_box, flip = draw_crop_box(64, 64, CropOptions(), None, rng), bool(rng.integers(2))
        view = np.asarray(crop_view(photo, crop_box, flip, 48))[..., 0]
        np.testing.assert_array_equal(crop_mask(mask, crop_box, flip, 48), view >= 128)


def test_a_composite_takes_the_view_where_the_mask_is_true() -> None:
    view, background = (Image.new("RGB", (4, 3), colour) for colour in ((10, 20, 30), (200, 100, 0)))
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    found = np.asarray(composite(view, background, mask))
    assert found[1, 2].tolist() == [10, 20, 30]
    assert (found[~mask] == [200, 100, 0]).all()


def test_mask_distortions() -> None:
    mask, rng = np.zeros((60, 60), bool), np.random.default_rng(5)
    mask[20:40, 26:30] = mask[28:32, 20:32] = True
    np.testing.assert_array_equal(distort_mask(mask, DistortionOptions(), rng), mask)
    np.testing.assert_array_equal(distort_mask(mask, DistortionOptions(flip_p=1.0), rng), mask[:, ::-1])
    box = distort_mask(mask, DistortionOptions(box=True), rng)
    assert box.sum() == 20 * 12
    assert box[20:40, 20:32].all()
    shifts = set()
    for _ in range(200):
        moved = distort_mask(mask, DistortionOptions(translate=0.25), rng)
        y, x = np.nonzero(moved)
        assert moved.sum() == mask.sum()
        shifts.add((int(y.min()) - 20, int(x.min()) - 20))
    assert {y for y, _ in shifts} == set(range(-5, 6))
    assert {x for _, x in shifts} == set(range(-3, 4))
    turned = distort_mask(mask, DistortionOptions(rotate=25.0, shear=25.0), rng)
    assert turned.sum() == pytest.approx(mask.sum(), rel=0.3)
    assert not (turned == mask).all()


def test_photos_are_decoded_upright_and_in_colour() -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.arange(0, 240, 2, dtype=np.uint8).repeat(80).reshape(120, 80)).save(
        buffer, "JPEG", exif=exif, quality=95
    )
    upright = decode(buffer.getvalue())
    assert upright.size == (120, 80)
    assert upright.mode == "RGB"
    assert np.asarray(upright)[40, 0, 0] > np.asarray(upright)[40, -1, 0]
