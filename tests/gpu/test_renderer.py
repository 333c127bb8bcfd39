"""The GPU's kernels make of a table and decoded pixels what the CPU's make of them."""

import ctypes
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from dali_bgaug.dataset import open_packed
from dali_bgaug.sampling import EpochShard, Seeds
from dali_bgaug.views.plan import Recipe, plan
from dali_bgaug.views.render import Decoded, Rendered, Renderer, Tiles
from dali_bgaug.views.table import IMAGE, Table
from pipelines import LoaderConfig
from pipelines.build import build_maker, choose_renderer, loader_recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SOURCES = ("photo", "tile")
DISTORTION = {"rotate": 30, "shear": 10, "translate": 0.2, "flip_p": 0.5}
KINDS = [
    *(("moco_v2", {"kind": kind}) for kind in ("none", "rm", "random", "swaps")),
    *(
        (method, {"kind": kind})
        for method in ("byol", "swav", "rotnet", "supervised")
        for kind in ("none", "rm", "random")
    ),
    ("evaluation", {"kind": "none"}),
    ("moco_v2", {"kind": "swaps", "coupled": True, "negatives": 2, "matches": "key"}),
    (
        "moco_v2",
        {"kind": "random", "donor": "crop", "without_foreground": "replace", "distortion": DISTORTION},
    ),
    ("byol", {"kind": "random", "donor": "none", "distortion": {"box": True}}),
    ("byol", {"kind": "random", "donor": "none", "stage": "before"}),
]
"""Every method with every background, at its full size, and the options that are kernels' business."""


def names(background: Any) -> str | None:
    """A test's name."""
    return (
        "-".join(background.values() if len(background) == 1 else background)
        if isinstance(background, dict)
        else None
    )


class Inputs(NamedTuple):
    """What a renderer gets."""

    table: Table
    photos: Decoded
    tiles: Decoded | None
    masks: torch.Tensor | None


@contextmanager
def decoded(
    shards: Path, method: str, background: dict[str, Any], **values: Any
) -> Iterator[tuple[Recipe, Inputs]]:
    """A batch of 12, decoded on the CPU, and the table of its views, thumbnails among them."""
    crop = {} if method == "evaluation" else {"fg_min": 0.3}
    background = background if background["kind"] == "none" else {"p_pos": 0.5, "p_neg": 0.5} | background
    common = {"shards": shards, "batch_size": 12, "device": "cpu", "threads": 2}
    config = LoaderConfig(pipeline=method, crop=crop, background=background, **common, **values)
    recipe, data = loader_recipe(config, with_sources=True), open_packed(shards)
    share, seeds = EpochShard(data.samples, 12, 0, 1), Seeds(config.seed, 0)
    with closing(build_maker(config, recipe, data, share, None)) as maker:
        maker.reader.schedule()
        batch = maker.reader.take()
        table = plan(
            recipe, partial(seeds.generator, epoch=batch.epoch, batch=batch.number), batch.lends, 1.0
        )
        yield recipe, Inputs(table, batch.photos, batch.tiles, batch.masks)


def render(renderer: Renderer, device: torch.device, inputs: Inputs) -> Rendered:
    """Upload the images and render; all of what comes is on the CPU."""
    kept: list[torch.Tensor] = []

    def upload(images: Tiles | None) -> Tiles | None:
        if not isinstance(images, Decoded):  # none, or geometry
            return images
        first = len(kept)
        for address, (height, width) in zip(images.addresses.tolist(), images.sizes.tolist(), strict=True):
            pixels = (ctypes.c_uint8 * (3 * height * width)).from_address(address)
            kept.append(torch.from_numpy(np.ctypeslib.as_array(pixels).copy()).to(device))
        return Decoded(np.array([tensor.data_ptr() for tensor in kept[first:]]), images.sizes)

    masks = None if inputs.masks is None else inputs.masks.to(device)
    made = renderer.render(inputs.table, upload(inputs.photos), upload(inputs.tiles), masks)
    images = {name: image.cpu().clone() for name, image in made.images.items()}
    return Rendered(images, made.crop_boxes.cpu(), made.composited.cpu())


def check_equal(recipe: Recipe, table: Table, found: Rendered, expected: Rendered) -> None:
    """The same boxes and backgrounds put; pixels to .1 grey levels, but for one in a thousand of an image
    (one in a hundred where a blur smears a composite).

    These are colours that are cut to whole levels and lie between two of them (the GPU multiplies and adds
    in one step), hence a few levels off at most; and where an edge of a mask falls between two pixels.
    """
    torch.testing.assert_close(found.crop_boxes, expected.crop_boxes, rtol=0, atol=1e-3)
    assert torch.equal(found.composited.bool(), expected.composited)
    assert found.images.keys() == expected.images.keys()
    jobs, put = table.jobs, expected.composited.numpy()
    few = 1e-2 if (jobs["before"] * jobs["sigma"]).any() else 1e-3
    composed = put | ((jobs["source"] == IMAGE) & put[jobs["sample"]])
    for number, slot in enumerate(table.slots):
        grey = 1 if slot.name in SOURCES else 255 * torch.tensor(recipe.normalise.std)
        difference = ((found.images[slot.name].float() - expected.images[slot.name]).abs() * grey).flatten(1)
        over = torch.from_numpy(composed[(jobs["slot"] == number) & (jobs["turns"] == 0)])
        assert ((difference > 0.1).float().mean(dim=1) < few).all(), slot.name
        worst = difference[~over].max() if not over.all() else 0
        assert worst < 5, slot.name


@pytest.mark.parametrize(("method", "background"), KINDS, ids=names)
def test_gpu_equals_cpu(textured: Path, method: str, background: dict[str, Any]) -> None:
    with decoded(textured, method, background) as (recipe, inputs):
        made = []
        for device in (CPU, GPU):
            with closing(choose_renderer(device, LoaderConfig(shards=textured, threads=2))) as renderer:
                made.append(render(renderer, device, inputs))
    check_equal(recipe, inputs.table, made[1], made[0])


def test_the_same_table_gives_the_same_bits(textured: Path) -> None:
    with (
        decoded(textured, "moco_v2", {"kind": "swaps"}) as (_, inputs),
        closing(choose_renderer(GPU, LoaderConfig(shards=textured))) as renderer,
    ):
        first, second = (render(renderer, GPU, inputs) for _ in range(2))
    for name, image in first.images.items():
        assert torch.equal(image, second.images[name]), name


def test_half_precision_is_the_same_rounded(textured: Path) -> None:
    with decoded(textured, "moco_v2", {"kind": "swaps"}) as (_, inputs):
        made = []
        for half in (False, True):
            with closing(choose_renderer(GPU, LoaderConfig(shards=textured, half=half))) as renderer:
                made.append(render(renderer, GPU, inputs).images)
    for name in ("query", "key", "negative_0"):
        assert made[1][name].dtype == torch.float16
        torch.testing.assert_close(made[1][name].float(), made[0][name], rtol=2e-3, atol=2e-3)
