"""Views by DALI's operators, on the GPU, or on the CPU from the same source: see `views.py`."""

from functools import partial

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph import inspect, masks
from dali_bgaug.graph.background import (
    BackgroundOptions,
    composite,
    grey_level,
    put_behind,
    treat_tiles,
)
from dali_bgaug.graph.context import constant
from dali_bgaug.graph.crop import NormaliseOptions, Window, crop, decode, normalise
from dali_bgaug.graph.outputs import Views
from dali_bgaug.graph.photometric import photometric
from dali_bgaug.graph.plan import ViewOptions, make_plan, views_with_mask
from dali_bgaug.graph.read import Source


def make(
    source: Source,
    views: dict[str, ViewOptions],
    background: BackgroundOptions,
    statistics: NormaliseOptions,
    half: bool,
) -> Views:
    """See `views.make_views`; views: by name."""
    context, sample = source.context, source.sample
    image = decode(context, sample["jpg"])
    plan = make_plan(source, views, background)
    packed = sample.get("mask")
    if packed is not None:
        packed = context.to_device(packed)
    pools = []
    if background.uses_tiles and background.stage == "after":
        pools = [
            treat_tiles(
                context,
                f"donors/{number}",
                plan.used[number],
                sample["tile.jpg"],
                plan.tile_window[number],
                look.crop.size,
                look.photometric if background.donor == "full" else None,
            )
            for number, look in enumerate(plan.looks)
        ]
    made, masked = Views({}, plan.replaced, plan.matched), {}
    if source.with_sources:
        made.sources |= inspect.sources(source, image) | {"window": plan.windows}
    for number, (name, options) in enumerate(views.items()):
        window, size = plan.window[number], options.crop.size
        view = crop(image, window, size)
        if background.stage == "after":
            view = photometric(context, name, view, options.photometric)
        if name in views_with_mask(views, background):
            with_mask, change = plan.with_mask[number], plan.distortion[number]
            mask = masked[name] = _view_mask(with_mask, packed, source, window, size, change, background)
        if background.kind != "none" and options.background:
            replace = plan.replace[number]
            if background.kind == "rm":
                level = grey_level(context, f"{name}/background", background.grey)
                view = put_behind(replace, view, level, mask)
            elif background.stage == "before":
                tile = fn.permute_batch(sample["tile.jpg"], indices=plan.donor[number])
                view = _put_tile_behind(replace, view, tile, mask, source, window, size)
            else:
                behind = fn.permute_batch(pools[plan.look[number]], indices=plan.donor[number])
                view = put_behind(replace, view, behind, mask)
        if background.stage == "before":
            view = photometric(context, name, view, options.photometric)
        made.view[name] = normalise(view, statistics, half)
    if background.kind == "swaps":
        made.match = partial(_match, plan.matched, made.view[background.matches], masked[background.matches])
    return made


def _match(
    matched: list[DataNode], view: DataNode, mask: DataNode, number: int, images: DataNode, place: DataNode
) -> DataNode:
    return put_behind(matched[number], fn.permute_batch(images, indices=place), view, mask)


def _view_mask(
    wanted: DataNode,
    packed: DataNode,
    source: Source,
    window: Window,
    size: int,
    change: DataNode | None,
    options: BackgroundOptions,
) -> DataNode:
    """The view's mask where it is wanted; elsewhere a stand-in that nobody reads."""
    device = source.context.device
    if wanted:
        mask = masks.view_mask(packed, source.mask_size, window, size, device)
        if options.distortion.any:
            mask = masks.distort(mask, change, size, options.distortion, device)
        result = mask
    else:
        result = constant(np.zeros((1, 1, 1)), np.uint8, device, layout="HWC")
    return result


def _put_tile_behind(
    replace: DataNode,
    view: DataNode,
    tile: DataNode,
    mask: DataNode,
    source: Source,
    window: Window,
    size: int,
) -> DataNode:
    """As if the photo had been put before the tile, stretched to its size, and then cropped."""
    if replace:
        result = composite(view, crop(decode(source.context, tile), window, size), mask)
    else:
        result = view
    return result
