"""The views of a photo: which window, which look, which background. What every method's graph is made of.

`plan.py` decides it all in numbers, and this file carries it out. Order of a view: crop and flip, jitter,
grayscale, blur, solarize, background, normalise; with `background.stage: before` the background comes right
after the crop.

A view with no foreground in its window keeps its background, whatever the coin says: replacing it would
replace everything, a positive pair would share nothing, and a matched negative would be the query itself.
"""

from dataclasses import dataclass, field

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

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
from dali_bgaug.graph.photometric import photometric
from dali_bgaug.graph.plan import ViewOptions, expand, make_plan, views_with_mask
from dali_bgaug.graph.read import Source


@dataclass
class Views:
    """The views of a batch, float32 [size, size, 3] of 0 to 255 by name, and how they came about."""

    view: dict[str, DataNode]
    mask: dict[str, DataNode]
    """uint8 [size, size, 1], 1 = foreground; only where a background is replaced or matched."""
    replaced: DataNode
    """bool [views]: whether the background was replaced, in the order of `view`; on the CPU."""
    matched: list[DataNode]
    """swaps: for each negative, bool: whether it is to have the background of the view it `matches`."""
    sources: dict[str, DataNode] = field(default_factory=dict)
    """For contact sheets: photo, mask, tile (uint8 thumbnails) and window, float32 [views, 4]."""

    @do_not_convert
    def finish(self, options: NormaliseOptions, half: bool) -> dict[str, DataNode]:
        """The outputs of a graph: the views normalised, and what else a batch says of itself."""
        outputs = {name: normalise(view, options, half) for name, view in self.view.items()}
        outputs["replaced"] = self.replaced
        if self.matched:
            outputs["matched"] = fn.stack(*self.matched) if len(self.matched) > 1 else self.matched[0]
        return outputs | self.sources


def make_views(source: Source, kinds: dict[str, ViewOptions], background: BackgroundOptions) -> Views:
    """Define the views of a batch.

    Args:
        source: what the graph starts from.
        kinds: the views.
        background: which backgrounds they get.
    """
    context, sample = source.context, source.sample
    views = expand(kinds)
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
    made = Views({}, {}, plan.replaced, plan.matched)
    if source.with_sources:
        made.sources |= inspect.sources(source, image) | {"window": plan.windows}
    for number, (name, options) in enumerate(views.items()):
        window, size = plan.window[number], options.crop.size
        view = crop(image, window, size)
        if background.stage == "after":
            view = photometric(context, name, view, options.photometric)
        if name in views_with_mask(views, background):
            with_mask, change = plan.with_mask[number], plan.distortion[number]
            mask = made.mask[name] = _view_mask(with_mask, packed, source, window, size, change, background)
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
        made.view[name] = view
    return made


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
