"""Tests of the GPU renderer on the CPU, by Triton's interpreter: `test_gpu.py` runs this file with
TRITON_INTERPRET=1, which has to be set before Triton is imported."""

import inspect
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from dali_bgaug.shards import pack_mask
from dali_bgaug.views import crop_boxes, gpu_crop_boxes, gpu_pixels, table
from dali_bgaug.views.cpu import CpuRenderer
from dali_bgaug.views.gpu import GpuRenderer
from dali_bgaug.views.options import (
    BackgroundOptions,
    CropOptions,
    DistortionOptions,
    NormaliseOptions,
    PhotometricOptions,
    ViewOptions,
)
from dali_bgaug.views.plan import Recipe, _draw_crop, plan
from dali_bgaug.views.render import Decoded
from pipelines import LoaderConfig, build, build_loader
from tests.helpers.rendering import PHOTOS

CPU = torch.device("cpu")
SIDE = 64
SIZES = np.array([[9, 17], [11, 8], [8, 10]], np.int32)  # small: the interpreter takes each tap for itself
STRONG = PhotometricOptions(jitter_p=0.8, grey_p=0.3, blur_p=0.5, solarize_p=0.3)


def _views(*names: str, size: int = 8, **values: object) -> dict[str, ViewOptions]:
    crop = CropOptions(size=size, scale=(0.2, 1.0), fg_min=0.1)
    return {name: ViewOptions(crop=crop, photometric=STRONG, **values) for name in names}


def _recipe(views: dict[str, ViewOptions], **background: object) -> Recipe:
    defaults = {"kind": "random", "p_pos": 0.7, "p_neg": 0.7}
    return Recipe(views, BackgroundOptions(**defaults | background), NormaliseOptions(), resize=10)


MOCO = _views("query", "key")
SWAV = _views("global_0", size=12) | _views("local_0", background=False)
CENTRAL = {"image": ViewOptions(crop=CropOptions(kind="central", size=8), photometric=STRONG)}
TURNED = _views("image", turns=4)
SHAKEN = DistortionOptions(rotate=30.0, shear=10.0, translate=0.2, flip_p=0.5)
GEOMETRY = np.array(
    [[2, 5, 7, 12, 0, 12, 9, 5], [1, 0, 8, 6, 8, 0, 3, 8], [0, 3, 8, 7, 0, 0, 8, 3]], np.int32
)
"""Tiled backgrounds of the photos: a strip from the right, the bottom, the left."""
RECIPES = {
    "rm": _recipe(MOCO, kind="rm"),
    "random with tiles as they are": _recipe(MOCO, donor="none"),
    "swaps": _recipe(MOCO, kind="swaps", negatives=2, matches="key"),
    "coupled": _recipe(MOCO, kind="swaps", coupled=True, without_foreground="replace"),
    "multi-crop": _recipe(SWAV),
    "rotnet random": _recipe(TURNED, stage="before", donor="none"),
    "geometry": _recipe(MOCO, kind="swaps"),
    "geometry before": _recipe(TURNED, stage="before", donor="none"),
    "central": _recipe(CENTRAL, kind="rm", p_pos=1.0),
    "central as stored": replace(_recipe(CENTRAL, kind="none"), resize=None),
    "distorted": _recipe(MOCO, kind="swaps", distortion=SHAKEN),
    "box": _recipe(MOCO, kind="rm", distortion=DistortionOptions(box=True, translate=0.2)),
    "sources": replace(_recipe(_views("image"), p_pos=1.0), sources=True),
}


@pytest.fixture(autouse=True)
def small_thumbnails_in_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program costs the interpreter the same for any number of pixels; 12 x 12 pixels still take two."""
    monkeypatch.setattr("dali_bgaug.views.plan.THUMBNAIL", 8)
    monkeypatch.setattr(gpu_pixels, "ROWS", 8)
    monkeypatch.setattr(gpu_pixels, "COLUMNS", 16)


@pytest.fixture(autouse=True)
def language_is_replaced_once_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter replaces its whole language anew for every call of a function in a kernel, a
    quarter of its time; of functions that look at the same modules once is enough."""
    launch, replace_ = interpreter.GridExecutor.__call__, interpreter._patch_lang
    done: set[tuple[bool, bool]] = set()

    def launch_anew(*args: Any, **options: Any) -> None:
        done.clear()
        launch(*args, **options)

    def replace_once(function: Any) -> Any:
        values = [value for value in function.__globals__.values() if inspect.ismodule(value)]
        seen = tl in values, tl.core in values
        if seen in done:
            return None
        done.add(seen)
        return replace_(function)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch_anew)
    monkeypatch.setattr(interpreter, "_patch_lang", replace_once)


@pytest.fixture(scope="module")
def batch() -> tuple[list[np.ndarray], list[np.ndarray], torch.Tensor]:
    """Photos, tiles of half their size, and masks: ellipses, one of them empty."""
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    tiles = [rng.integers(0, 256, (*size // 2, 3), dtype=np.uint8) for size in SIZES]
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    masks = [((y - 0.5) / 0.3) ** 2 + ((x - c) / 0.2) ** 2 < r for c, r in ((0.4, 1), (0, 0), (0.6, 1))]
    return (
        photos,
        tiles,
        torch.stack([torch.frombuffer(bytearray(pack_mask(m)), dtype=torch.uint8) for m in masks]),
    )


def _images(pixels: list[np.ndarray]) -> Decoded:
    sizes = np.array([one.shape[:2] for one in pixels], np.int32)
    return Decoded(np.array([one.ctypes.data for one in pixels]), sizes)


@pytest.mark.parametrize(
    ("name", "half"),
    [
        *((name, False) for name in RECIPES),
        ("swaps", True),
    ],
)
def test_the_gpu_renders_what_the_cpu_renders(batch: tuple, name: str, half: bool) -> None:
    recipe, (photos, tiles, masks) = RECIPES[name], batch

    def generators(stream: str) -> np.random.Generator:
        return np.random.default_rng([len(name), zlib.crc32(stream.encode())])

    made = plan(recipe, generators, np.ones(len(photos), bool), 1.0)
    behind = GEOMETRY if "geometry" in name else _images(tiles)
    arguments = (made, _images(photos), behind, masks if recipe.looks_at_masks else None)
    cpu, gpu = CpuRenderer(2, half), GpuRenderer(CPU, half)
    expected, found = cpu.render(*arguments), gpu.render(*arguments)
    cpu.close()
    assert torch.equal(found.composited, expected.composited)
    assert found.composited.any() or recipe.background.kind == "none"
    assert torch.allclose(found.crop_boxes, expected.crop_boxes, atol=1e-4)
    assert found.images.keys() == expected.images.keys()
    scale = 1.0 if name == "sources" else 255 * min(recipe.normalise.std)
    for slot, image in expected.images.items():
        assert (found.images[slot].shape, found.images[slot].dtype) == (image.shape, image.dtype)
        off = scale * (found.images[slot].float() - image.float()).abs()
        if half:
            assert off.median() < 0.05
        # A pixel on an edge of the mask may fall to the other side: one rounds its place to float32.
        assert (off > (0.3 if half else 0.1)).float().mean() < 0.005, (slot, off.max())


def test_crop_boxes_are_the_cpus_draw_for_draw(batch: tuple) -> None:
    """Rounding apart: of 30 jobs with every kind of foreground share, at most one differs."""
    rng, masks = np.random.default_rng(1), batch[2]
    jobs = table.new_jobs(30)
    jobs["frame"], jobs["background"] = np.arange(30) % 3, table.GREY
    for number, fg_min in enumerate((0.0, 0.1, 0.5, 0.9, 1.0)):
        crop = CropOptions(scale=(0.05, 1.0 - 0.1 * number), fg_min=fg_min)
        _draw_crop(jobs[6 * number : 6 * (number + 1)], crop, 256, rng)
    sizes = SIZES * 25
    expected = crop_boxes.choose(jobs, sizes, masks.numpy())
    found, seen = _choose_on_device(jobs, sizes, masks)
    different = (np.abs(found - expected["crop_box"]) > 0.5).any(axis=1) | (seen != expected["visible"])
    assert different.sum() <= 1, different.sum()
    assert 0.2 < (jobs["fg_min"] > 0).mean() < 1 and 0 < seen.mean() < 1


def _choose_on_device(
    jobs: np.ndarray, sizes: np.ndarray, masks: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Crop boxes, float32 [J, 4], and whether they show foreground, of the kernel alone."""
    places, crops = np.zeros(len(jobs), table.ADDRESS), np.zeros(len(jobs), table.CROP)
    places["frame_height"], places["frame_width"] = sizes[jobs["frame"]].T
    addresses = [array.ctypes.data for array in (jobs, crops, places)]
    side = 0 if masks is None else SIDE
    address = 0 if masks is None else masks.data_ptr()
    gpu_crop_boxes.choose_crop_boxes[(len(jobs),)](*addresses, address, SIDE=side, GRID=8, DISTORTED=False)
    return crops["crop_box"], crops["visible"]


def test_crop_boxes_without_masks_are_the_cpus_draw_for_draw() -> None:
    """Whose law is torchvision's (`test_crop_boxes.py`): of photos of every shape, all 10 draws refused."""
    sizes = np.array([(height, width) for width, height in PHOTOS.values()])
    jobs = table.new_jobs(30)
    jobs["frame"] = np.arange(30) % len(sizes)
    _draw_crop(jobs, CropOptions(), 256, np.random.default_rng(2))
    expected = crop_boxes.choose(jobs, sizes, None)
    found, seen = _choose_on_device(jobs, sizes, None)
    assert ((np.abs(found - expected["crop_box"]) > 0.5).any(axis=1)).sum() <= 1
    assert not seen.any()


def test_the_whole_loader_with_interpreted_kernels(textured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards to a batch of MoCo-v2 with BG_Swaps, by either renderer."""
    config = LoaderConfig(
        shards=textured,
        batch_size=2,
        device="cpu",
        prefetch=1,
        crop={"size": 8, "scale": [0.001, 0.002]},  # few pixels of the photo for each of the view
        background={"kind": "swaps", "p_pos": 0.7, "p_neg": 0.7, "without_foreground": "replace"},
    )
    expected = _first_batch(config)
    assert expected["replaced"].any()
    monkeypatch.setattr(build, "choose_renderer", lambda device, config: GpuRenderer(device, config.half))
    found = _first_batch(config)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if tensor.is_floating_point():
            assert tensor.is_contiguous(memory_format=torch.channels_last)
            assert ((tensor - expected[name]).abs() > 2e-3).float().mean() < 0.005, name
        else:
            assert torch.equal(tensor, expected[name]), name


def _first_batch(config: LoaderConfig) -> dict[str, torch.Tensor]:
    with build_loader(config) as loader:
        return next(iter(loader))
