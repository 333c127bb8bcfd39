"""The yardstick: its pieces against recorded results of PIL and torchvision, its batches pixel by pixel."""

import io
import multiprocessing
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image

from dali_bgaug.errors import UserError
from dali_bgaug.graph.masks import DistortionOptions
from dali_bgaug.graph.photometric import PhotometricOptions
from dali_bgaug.shards import Sample, read_manifest, read_samples
from dali_bgaug.windows import CropOptions
from pipelines import LoaderConfig, torchvision_loader
from pipelines.torchvision_loader import Batches, TorchvisionLoader
from pipelines.torchvision_views import (
    Look,
    apply_look,
    composite,
    crop_mask,
    crop_view,
    decode,
    distort_mask,
    draw_look,
    draw_window,
    foreground_inside,
)
from tests.conftest import PLAIN_LOOK

DATA = Path(__file__).parents[1] / "data"
WHOLE = (0.0, 0.0, 1.0, 1.0)
FLAGGED = range(4)
"""Photos of the flat set without a mask, so without a tile."""


# One view


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("pil_brightness_1.3", Look(brightness=1.3)),
        ("pil_contrast_1.4", Look(contrast=1.4)),
        ("pil_saturation_1.2", Look(saturation=1.2)),
        ("pil_hue_+0.1", Look(hue=0.1)),
        ("pil_blur_radius0.1", Look(sigma=0.1)),
        ("pil_blur_radius2.0", Look(sigma=2.0)),
        ("pil_solarize_128", Look(solarize=True)),
        ("pil_gray", Look(grayscale=True)),
    ],
)
def test_looks_are_pils(name: str, look: Look) -> None:
    with np.load(DATA / "aug_ops.npz") as recorded:
        image, expected = recorded["img_u8"], recorded[name]
    found = np.asarray(apply_look(Image.fromarray(image), look))
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(found, expected)


def test_a_look_goes_jitter_grayscale_blur_solarize() -> None:
    with np.load(DATA / "aug_ops.npz") as recorded:
        image = Image.fromarray(recorded["img_u8"])
    order = ("hue", "contrast", "brightness", "saturation")
    look = Look(1.2, 0.7, 1.3, -0.05, grayscale=True, sigma=1.5, solarize=True, order=order)
    expected = F.adjust_contrast(F.adjust_hue(image, -0.05), 0.7)
    expected = F.adjust_saturation(F.adjust_brightness(expected, 1.2), 1.3)
    for step in (Look(grayscale=True), Look(sigma=1.5), Look(solarize=True)):
        expected = apply_look(expected, step)
    np.testing.assert_array_equal(np.asarray(apply_look(image, look)), np.asarray(expected))


def test_drawn_looks_have_the_options_law() -> None:
    options, rng = PhotometricOptions(solarize_p=0.3, brightness=1.5), np.random.default_rng(0)
    looks = [draw_look(options, rng) for _ in range(4000)]
    jittered = [look for look in looks if look.hue]
    assert len(jittered) / 4000 == pytest.approx(0.8, abs=0.02)
    assert all(look.brightness == look.contrast == look.saturation == 1 for look in looks if not look.hue)
    assert np.mean([look.grayscale for look in looks]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([look.sigma is not None for look in looks]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([look.solarize for look in looks]) == pytest.approx(0.3, abs=0.03)
    for values, low, high in (
        ([look.brightness for look in jittered], 0, 2.5),
        ([look.contrast for look in jittered], 0.6, 1.4),
        ([look.hue for look in jittered], -0.1, 0.1),
        ([look.sigma for look in looks if look.sigma is not None], 0.1, 2.0),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    orders = Counter(look.order for look in jittered)
    assert len(orders) == 24
    assert min(orders.values()) > 80


@pytest.mark.parametrize("case", ["500x375_s0.2-1", "500x375_s0.05-0.14", "1000x200_s0.2-1"])
def test_windows_have_torchvisions_law(case: str) -> None:
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
    windows = np.array([draw_window(width, height, crop, None, rng) for _ in range(10_000)])
    h, w = (windows[:, 2] - windows[:, 0]) * height, (windows[:, 3] - windows[:, 1]) * width
    area = h * w / (width * height)
    np.testing.assert_allclose(h, h.round(), atol=1e-6)
    np.testing.assert_allclose(np.quantile(area, levels), expected["area_q"], atol=0.015)
    np.testing.assert_allclose(np.quantile(np.log(w / h), levels), expected["logratio_q"], atol=0.04)
    i, j, fallback_h, fallback_w = expected["fallback_ijhw"]
    central = [i / height, j / width, (i + fallback_h) / height, (j + fallback_w) / width]
    rate = np.isclose(windows, central).all(axis=1).mean()
    assert rate == pytest.approx(expected["fallback_rate"], abs=0.02)


@pytest.mark.parametrize("width, height", [(50, 400), (400, 50), (64, 64)])
def test_the_fallback_is_the_largest_central_window(width: int, height: int) -> None:
    """A window as large as the photo but of an allowed ratio fits only into the square one."""
    window = draw_window(width, height, CropOptions(scale=(1.0, 1.0)), None, np.random.default_rng(0))
    expected = {50: (166 / 400, 0, 233 / 400, 1), 400: (0, 166 / 400, 1, 233 / 400), 64: WHOLE}[width]
    assert window == pytest.approx(expected)


def test_windows_hold_fg_min_exactly() -> None:
    """The photo has 3 x 5 pixels to a pixel of the mask: every window holds its share, counted there."""
    mask = np.zeros((64, 64), bool)
    mask[5:20, 30:61] = True
    mask[50, 3] = True
    photo = np.repeat(np.repeat(mask, 3, axis=0), 5, axis=1)
    height, width = photo.shape
    crop, rng = CropOptions(scale=(0.05, 1.0), fg_min=0.6), np.random.default_rng(2)
    rejected = 0
    for _ in range(1000):
        window = draw_window(width, height, crop, mask, rng)
        y0, x0, y1, x1 = np.multiply(window, [height, width, height, width]).round().astype(int)
        share = photo[y0:y1, x0:x1].sum() / photo.sum()
        assert foreground_inside(mask, window) / mask.sum() == pytest.approx(share, abs=1e-12)
        free = draw_window(width, height, crop, None, rng)
        rejected += foreground_inside(mask, free) < 0.6 * mask.sum()
        central = (y0, x0, y1, x1) == (0, (width - 256) // 2, height, (width + 256) // 2)
        assert share >= 0.6 or central
    assert rejected > 500  # so that the constraint was put to the test


@pytest.mark.parametrize("foreground", [False, True])
def test_an_empty_mask_accepts_anything_and_a_full_one_only_the_whole(foreground: bool) -> None:
    mask, rng = np.full((64, 64), foreground), np.random.default_rng(0)
    windows = [draw_window(200, 200, CropOptions(fg_min=1.0), mask, rng) for _ in range(50)]
    assert (set(windows) == {WHOLE}) == foreground


def test_a_crop_is_crop_then_resize() -> None:
    rng = np.random.default_rng(3)
    photo = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    photo[:20], photo[:, :30] = 255, 255
    image, window = Image.fromarray(photo), np.float32([20 / 90, 30 / 120, 77 / 90, 101 / 120])
    expected = Image.fromarray(photo[20:77, 30:101]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop_view(image, window, False, 32), expected)
    np.testing.assert_array_equal(crop_view(image, window, True, 32), np.asarray(expected)[:, ::-1])


def test_view_and_mask_are_cropped_alike() -> None:
    rng = np.random.default_rng(4)
    mask = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((64, 64))) > 128
    photo = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    for _ in range(20):
        window, flip = draw_window(64, 64, CropOptions(), None, rng), bool(rng.integers(2))
        view = np.asarray(crop_view(photo, window, flip, 48))[..., 0]
        np.testing.assert_array_equal(crop_mask(mask, window, flip, 48), view >= 128)


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


# Batches


def _config(shards: Path, pipeline: str = "moco_v2", **values: object) -> LoaderConfig:
    """Small views of whole photos, and pixels from 0 to 1."""
    defaults = {
        "batch_size": 32,
        "device": "cpu",
        "photometric": PLAIN_LOOK,
        "crop": {"size": 32, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
        "normalise": {"mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    return LoaderConfig(shards=shards, pipeline=pipeline, **{**defaults, **values})


def _epoch(config: LoaderConfig, *ranks: int) -> list[dict[str, torch.Tensor]]:
    with TorchvisionLoader(config, *ranks, workers=0) as loader:
        return list(loader)


def _levels(views: torch.Tensor) -> tuple[list[int], list[int]]:
    """The levels of 0 to 255 outside and inside the square of views of flat photos, [N, 3, 32, 32]."""
    levels = (views * 255).round().int()
    outside, inside = levels[:, :, :6].flatten(1), levels[:, :, 10:22, 10:22].flatten(1)
    assert (outside == outside[:, :1]).all()
    assert (inside == inside[:, :1]).all()
    return outside[:, 0].tolist(), inside[:, 0].tolist()


SWAV = {"global": {"crop": {"size": 32}}, "local": {"count": 3, "crop": {"size": 16}}}


@pytest.mark.parametrize(
    ("pipeline", "values", "shapes"),
    [
        ("supervised", {}, {"image": (8, 3, 24, 24)}),
        ("supervised", {"background": {"kind": "rm", "p_pos": 1.0}}, {"image": (8, 3, 24, 24)}),
        ("byol", {"background": {"kind": "random"}}, {"view_1": (8, 3, 24, 24), "view_2": (8, 3, 24, 24)}),
        (
            "swav",
            {"background": {"kind": "random"}, "views": SWAV, "crop": {"fg_min": 0.1}},
            {f"global_{n}": (8, 3, 32, 32) for n in range(2)}
            | {f"local_{n}": (8, 3, 16, 16) for n in range(3)},
        ),
        ("rotnet", {"background": {"kind": "random"}}, {"image": (8, 4, 3, 24, 24)}),
        ("moco_v2", {"half": True}, {"query": (8, 3, 24, 24), "key": (8, 3, 24, 24)}),
        (
            "moco_v2",
            {"background": {"kind": "swaps", "negatives": 2}},
            {name: (8, 3, 24, 24) for name in ("query", "key", "negative_0", "negative_1")},
        ),
        (
            "moco_v2",
            {"background": {"kind": "swaps", "distortion": {"rotate": 20.0, "translate": 0.1}}},
            {name: (8, 3, 24, 24) for name in ("query", "key", "negative")},
        ),
    ],
)
def test_batches_of_every_method(
    textured: Path, pipeline: str, values: dict, shapes: dict[str, tuple[int, ...]]
) -> None:
    config = LoaderConfig(
        shards=textured,
        **{
            "pipeline": pipeline,
            "batch_size": 8,
            "device": "cpu",
            "crop": {"size": 24, "fg_min": 0.1},
            **values,
        },
    )
    batches = _epoch(config)
    assert len(batches) == 6
    for batch in batches:
        views = {name: view for name, view in batch.items() if view.is_floating_point()}
        assert {name: tuple(view.shape) for name, view in views.items()} == shapes
        for view in views.values():
            assert view.dtype == (torch.float16 if config.half else torch.float32)
            assert view.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)
            assert -2.2 < view.min() < view.max() < 2.7
        swaps = config.background.kind == "swaps"
        assert batch["replaced"].shape == (8, len(shapes) - (config.background.negatives if swaps else 0))
        assert batch["label"].dtype == torch.int64
        assert set(batch["label"].tolist()) <= {0, 1, 2}
        extra = {"matched"} if swaps else set()
        assert batch.keys() - views.keys() == {"replaced", "label"} | extra
        if swaps:
            several = config.background.negatives > 1
            assert batch["matched"].shape == ((8, config.background.negatives) if several else (8,))
            assert batch["matched"].dtype == torch.bool
    assert list(views) == list(shapes)


def test_normalising(flat: Path) -> None:
    config = _config(flat, "supervised", normalise={"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2.0]})
    [plain, *_], [batch, *_] = _epoch(_config(flat, "supervised")), _epoch(config)
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.5, 0.25, 2.0])[:, None, None]
    torch.testing.assert_close(batch["image"], (plain["image"] - mean) / std, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("donor", ["full", "crop", "none"])
def test_a_replaced_background_is_that_of_another_photo(flat: Path, donor: str) -> None:
    background = {"kind": "random", "p_pos": 0.5, "donor": donor}
    replacements = 0
    for batch in _epoch(_config(flat, background=background, views={"query": {"background": False}})):
        own, _ = _levels(batch["query"])
        behind, inside = _levels(batch["key"])
        assert not batch["replaced"][:, 0].any()
        for place, replaced in enumerate(batch["replaced"][:, 1].tolist()):
            photo = own[place] // 2
            assert inside[place] == 255
            assert (behind[place] != own[place]) == replaced
            assert behind[place] in own
            if replaced:
                assert photo not in FLAGGED  # nothing would be left of it
                assert behind[place] // 2 not in FLAGGED
        replacements += int(batch["replaced"].sum())
    assert 15 < replacements < 45


def test_removed_backgrounds_are_grey_levels_in_range(flat: Path) -> None:
    background = {"kind": "rm", "p_pos": 1.0, "grey": [0.25, 0.5]}
    levels = []
    for batch in _epoch(_config(flat, "supervised", background=background)):
        behind, inside = _levels(batch["image"])
        replaced = batch["replaced"][:, 0].tolist()
        assert set(inside) == {255}
        levels += [level for level, its in zip(behind, replaced, strict=True) if its]
        assert sum(replaced) >= 28
    assert 64 <= min(levels) <= max(levels) <= 128
    assert len(set(levels)) > 20


def test_before_the_look_comes_the_background(flat: Path) -> None:
    """RotNet: the photo's background is replaced, and solarizing turns what it was replaced by."""
    look = PLAIN_LOOK.model_copy(update={"solarize_p": 1.0})
    background = {"kind": "rm", "p_pos": 1.0, "grey": [0.75, 0.75]}
    for stage, level in (("before", 255 - 191), ("after", 191)):
        config = _config(flat, "supervised", background={**background, "stage": stage}, photometric=look)
        for batch in _epoch(config):
            behind, inside = _levels(batch["image"])
            replaced = batch["replaced"][:, 0].tolist()
            assert set(inside) == {0}
            assert {behind[place] for place in range(32) if replaced[place]} == {level}


def test_rotnet_turns_counter_clockwise(textured: Path) -> None:
    config = LoaderConfig(shards=textured, pipeline="rotnet", batch_size=8, device="cpu", crop={"size": 24})
    images = _epoch(config)[0]["image"]
    for turns in range(4):
        assert torch.equal(images[:, turns], images[:, 0].rot90(turns, (2, 3)))
    assert torch.equal(images[:, 1, :, 23, 0], images[:, 0, :, 0, 0])  # top left goes to bottom left


@pytest.mark.parametrize("matches", ["query", "key"])
@pytest.mark.parametrize("coupled", [False, True])
def test_matched_negatives(flat: Path, matches: str, coupled: bool) -> None:
    """A matched negative has the background of the finished view; any other is another photo's key."""
    background = {
        "kind": "swaps", "p_pos": 0.5, "p_neg": 0.5, "negatives": 2, "matches": matches, "coupled": coupled
    }  # fmt: skip
    for batch in _epoch(_config(flat, background=background)):
        view, _ = _levels(batch[matches])
        negatives = [_levels(batch[f"negative_{number}"])[0] for number in range(2)]
        matched = batch["matched"].tolist()
        for place in range(32):
            for number in range(2):
                same = negatives[number][place] == view[place]
                assert not matched[place][number] or same
        key_replaced = batch["replaced"][:, 1].tolist()
        if coupled:
            assert matched == [[its, its] for its in key_replaced]
        else:
            assert 16 < batch["matched"].sum() < 48


def test_an_unmatched_negative_is_the_key_of_another_photo(flat: Path) -> None:
    """Of two photos each gets the other's background; the negative of one is the key of the other."""
    background = {"kind": "swaps", "p_pos": 1.0, "p_neg": 0.0, "matches": "key"}
    views, both = {"query": {"background": False}}, 0
    for batch in _epoch(_config(flat, batch_size=2, background=background, views=views)):
        one, other = _levels(batch["query"])[0]
        assert not batch["matched"].any()
        assert torch.equal(batch["negative"], batch["key"].flip(0))
        if batch["replaced"][:, 1].all():
            assert _levels(batch["key"])[0] == [other, one]
            both += 1
    assert both > 20


def test_background_warmup_rises_from_zero(flat: Path) -> None:
    config = _config(flat, batch_size=16, background={"kind": "rm", "p_pos": 1.0, "warmup_epochs": 2})
    with TorchvisionLoader(config, workers=0) as loader:
        shares = [batch["replaced"].float().mean().item() for _ in range(3) for batch in loader]
    assert shares[0] == 0
    assert 0.2 < sum(shares[2:7]) / 5 < 0.7
    assert min(shares[8:]) > 0.7  # all but photos without foreground


def test_photos_are_decoded_once_and_tiles_for_views_that_use_one(
    flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    monkeypatch.setattr(torchvision_loader, "decode", lambda data: decoded.append(len(data)) or decode(data))
    for p in (0.0, 0.5):
        decoded.clear()
        batches = _epoch(_config(flat, background={"kind": "random", "p_pos": p}))
        replaced = sum(int(batch["replaced"].sum()) for batch in batches)
        assert 64 + (p > 0) <= len(decoded) <= 64 + replaced


# Epochs, ranks, processes


def _packed(shards: Path) -> list[Sample]:
    """All samples as they lie in the shards."""
    return [sample for shard in read_manifest(shards).shards for sample in read_samples(shards, shard)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_photo_twice_in_an_epoch_and_others_each_epoch(flat: Path, world_size: int) -> None:
    epochs: list[list[int]] = [[], []]
    for rank in range(world_size):
        config = _config(flat, "supervised", batch_size=5 * world_size)
        with TorchvisionLoader(config, rank, world_size, workers=0) as loader:
            assert len(loader) == 64 // (5 * world_size)
            for epoch in epochs:
                epoch += [level for batch in loader for level in _levels(batch["image"])[0]]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 64 // (5 * world_size) * 5 * world_size
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("batch_size", "world_size"), [(24, 1), (64, 1), (24, 2), (10, 5), (128, 2)])
def test_evaluation_gives_every_photo_once_in_order(flat: Path, batch_size: int, world_size: int) -> None:
    config = _config(flat, "evaluation", batch_size=batch_size, resize=32)
    found, lengths = [], set()
    for rank in range(world_size):
        batches = _epoch(config, rank, world_size)
        lengths.add(len(batches))
        for batch in batches:
            assert batch.keys() == {"image", "label", "valid"}
            levels = _levels(batch["image"])[0]
            assert len(levels) == batch_size // world_size
            found += [level for level, valid in zip(levels, batch["valid"].tolist(), strict=True) if valid]
    assert found == [decode(sample.photo).getpixel((0, 0))[0] for sample in _packed(flat)]
    assert lengths == {-(-64 // batch_size)}


def test_evaluation_is_torchvisions_resize_and_central_crop(textured: Path) -> None:
    config = _config(textured, "evaluation", batch_size=20, crop={"size": 64}, resize=81)
    images = torch.cat([batch["image"] for batch in _epoch(config)])
    for image, sample in zip(images, _packed(textured)):
        photo = F.center_crop(F.resize(decode(sample.photo), 81), 64)
        torch.testing.assert_close(image, F.to_tensor(photo))


def test_workers_give_the_same_batches_and_end_with_the_loader(textured: Path) -> None:
    config = LoaderConfig(
        shards=textured, batch_size=16, device="cpu", crop={"size": 24}, background={"kind": "swaps"}
    )
    with TorchvisionLoader(config, workers=0) as loader:
        expected = [batch for _ in range(2) for batch in loader]
    with TorchvisionLoader(config, workers=2) as loader:
        found, workers = [], set()
        for _ in range(2):
            found += list(loader)
            workers |= {child.pid for child in multiprocessing.active_children()}
    assert len(workers) == 2
    assert not multiprocessing.active_children()
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(expected[0]["query"], expected[3]["query"])


def test_a_closed_loader_says_so_also_when_closed_amid_an_epoch(textured: Path) -> None:
    loader = TorchvisionLoader(_config(textured, batch_size=8), workers=1)
    batches = iter(loader)
    next(batches)
    loader.close()
    assert not multiprocessing.active_children()
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


def test_open_files_are_few_and_stay_behind_when_pickled(
    textured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_loader, "_OPEN_FILES", 2)
    batches = Batches(_config(textured), 0, 1)
    photos = [batches.samples[number].photo for number in range(50)]  # 4 shards
    assert len(batches.samples._files) == 2
    copy = pickle.loads(pickle.dumps(batches)).samples
    assert not copy._files
    assert [copy[number].photo for number in range(50)] == photos
    for shards in (batches.samples, copy):
        shards.close()
        assert not shards._files


def test_bad_options_are_errors(textured: Path) -> None:
    with pytest.raises(UserError, match="batch_size=8: not divisible by 3 ranks"):
        TorchvisionLoader(_config(textured, batch_size=8), 0, 3)
    with pytest.raises(UserError, match="batch_size=64: only 50 photos"):
        TorchvisionLoader(_config(textured, batch_size=64))
    with pytest.raises(UserError, match="two photos a rank"):
        TorchvisionLoader(_config(textured, batch_size=2, background={"kind": "swaps"}), 0, 2)
