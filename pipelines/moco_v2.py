"""MoCo-v2's views: query, key, and with BG_Swaps the matched negative.

Order: crop and flip, jitter, grayscale, blur, background, normalise. A view with no foreground in it keeps
its background, whatever the coin says.

The negative is n = m r + (1 - m) q with probability p_neg, else n = r: q the finished query, m its foreground
mask, r a random image. r is the *key view of another photo of the batch before its background is replaced*:
it has a crop, a flip and a photometric draw of its own already, and costs a copy instead of a third view.
"""

from collections.abc import Callable

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph import background, inspect, masks
from dali_bgaug.graph.context import Context, constant
from dali_bgaug.graph.crop import Window, crop, decode, normalise, split_windows, windows
from dali_bgaug.graph.photometric import photometric
from pipelines.config import LoaderConfig

VIEWS = ("query", "key")


def needs(config: LoaderConfig) -> list[str]:
    """The components of a sample this configuration reads."""
    kind = config.background.kind
    masked = kind != "none" or config.crop.fg_min > 0
    return [
        "jpg",
        "cls",
        *(["mask"] if masked else []),
        *(["tile.jpg"] if kind in ("random", "swaps") else []),
    ]


def graph(
    context: Context,
    config: LoaderConfig,
    sample: dict[str, DataNode],
    mask_size: int,
    strength: Callable[[int], float],
    with_sources: bool = False,
) -> dict[str, DataNode]:
    """Define the views.

    Args:
        context: backend and seeds.
        config: which views.
        sample: encoded components, uint8 [bytes] on the CPU (see `needs`).
        mask_size: side of the masks in pixels.
        strength: iteration -> factor in [0, 1] on the background probabilities.
        with_sources: also give what the views were made from, for contact sheets.

    Returns:
        query, key: normalised [size, size, 3]; replaced: bool [views], whether the background was replaced;
        for swaps: negative, and matched: bool, whether it has the query's background; with_sources: photo,
        mask, tile (uint8 thumbnails), window: float32 [views, 4].
    """
    packed = sample.get("mask")
    image = decode(context, sample["jpg"], config.hw_decoder_load)
    shape = fn.peek_image_shape(sample["jpg"])  # as decoded: EXIF orientation applied
    window, visible = windows(context, shape, [config.crop] * len(VIEWS), packed, mask_size)
    window_of = split_windows(window, len(VIEWS))
    if packed is not None:
        packed = context.to_device(packed)
    clean = [
        photometric(context, name, crop(image, window_of[number], config.crop.size), config.photometric)
        for number, name in enumerate(VIEWS)
    ]
    options = config.background
    replace, matched = constant(np.zeros(len(VIEWS)), bool, "cpu"), None
    outputs = dict(zip(VIEWS, clean))
    if options.kind != "none":
        if options.uses_tiles:
            tile = sample["tile.jpg"]
            replace, donor, tile_window = background.donors(
                context, tile, shape, len(VIEWS), config.crop, options.p_pos, strength
            )
            tile_window_of = split_windows(tile_window, len(VIEWS))
            tiles = [
                (fn.permute_batch(tile, indices=donor[number]), tile_window_of[number])
                for number in range(len(VIEWS))
            ]
        else:
            replace = context.coins("replace", options.p_pos, len(VIEWS), strength=strength)
            tiles = [None] * len(VIEWS)
        # Without foreground in sight, replacing the background would replace everything: the positive pair
        # would share nothing, and the matched negative would be the query itself.
        replace = replace & visible
        swaps = options.kind == "swaps"
        if swaps:
            matched = context.coins("matched", options.p_neg, strength=strength) & visible[0]
        for number, name in enumerate(VIEWS):
            coin = replace[number]
            negative = swaps and name == "query"
            wanted = coin | matched if negative else coin
            mask = _mask_where(context, config, wanted, packed, mask_size, window_of[number])
            outputs[name] = _replace(context, config, name, coin, clean[number], tiles[number], mask)
            if negative:
                outputs["negative"] = _negative(context, matched, clean[1], outputs["query"], mask)
    outputs = {name: normalise(view, config.normalise, config.half) for name, view in outputs.items()}
    outputs["replaced"] = replace
    if matched is not None:
        outputs["matched"] = matched
    if with_sources:
        outputs |= inspect.sources(context, image, packed, mask_size, sample.get("tile.jpg"))
        outputs["window"] = window
    return outputs


def _mask_where(
    context: Context,
    config: LoaderConfig,
    wanted: DataNode,
    packed: DataNode,
    mask_size: int,
    window: Window,
) -> DataNode:
    """The view's mask where it is wanted; elsewhere a stand-in that nobody reads."""
    if wanted:
        mask = masks.view_mask(packed, mask_size, window, config.crop.size, context.device)
    else:
        mask = constant(np.zeros((1, 1, 1)), np.uint8, context.device, layout="HWC")
    return mask


def _replace(
    context: Context,
    config: LoaderConfig,
    name: str,
    replace: DataNode,
    view: DataNode,
    tile: tuple[DataNode, Window] | None,
    mask: DataNode,
) -> DataNode:
    """The view with its background replaced where the coin says so; tile: encoded, and its window."""
    if replace:
        if tile is None:
            behind = background.grey_level(context, f"{name}/background")
        else:
            behind = background.donor_view(
                context,
                f"{name}/background",
                *tile,
                config.crop.size,
                config.photometric,
                config.hw_decoder_load,
            )
        result = background.composite(view, behind, mask, context.device)
    else:
        result = view
    return result


def _negative(
    context: Context, matched: DataNode, keys: DataNode, query: DataNode, mask: DataNode
) -> DataNode:
    """BG_Swaps' extra negative: another photo, with the query's background where the coin says so."""
    random_image = fn.permute_batch(keys, indices=background.others(context, "negative"))
    if matched:
        result = background.composite(random_image, query, mask, context.device)
    else:
        result = random_image
    return result
