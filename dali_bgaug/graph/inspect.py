"""What views were made from, as small pictures for contact sheets."""

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.context import Context, constant
from dali_bgaug.graph.crop import decode
from dali_bgaug.graph.masks import unpack
from dali_bgaug.graph.read import Source

THUMBNAIL = 160


def sources(source: Source, image: DataNode) -> dict[str, DataNode]:
    """photo, mask, tile as uint8 [THUMBNAIL, THUMBNAIL, 3] on the CPU, stretched to a square; what is not
    read is left out, and a flagged photo's tile is black."""
    context, sample = source.context, source.sample
    found = {"photo": _thumbnail(image)}
    if "mask" in sample:
        mask = unpack(context.to_device(sample["mask"]), source.mask_size, context.device)
        grey = _thumbnail(mask) * constant(255, np.uint8, context.device)
        found["mask"] = fn.cat(grey, grey, grey, axis=2)
    if "tile.jpg" in sample:
        found["tile"] = _tile(context, sample["tile.jpg"])
    return {name: node.cpu() for name, node in found.items()}


def _thumbnail(image: DataNode) -> DataNode:
    return fn.resize(image, size=[THUMBNAIL, THUMBNAIL])


def _tile(context: Context, tile: DataNode) -> DataNode:
    if tile.shape()[0] > 0:
        result = _thumbnail(decode(context, tile))
    else:
        result = constant(np.zeros((THUMBNAIL, THUMBNAIL, 3)), np.uint8, context.device, "HWC")
    return result
