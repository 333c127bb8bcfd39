"""What views were made from, as small pictures for contact sheets."""

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.context import Context, constant
from dali_bgaug.graph.crop import decode
from dali_bgaug.graph.masks import unpack

THUMBNAIL = 160


def sources(
    context: Context, image: DataNode, packed: DataNode | None, mask_size: int, tile: DataNode | None
) -> dict[str, DataNode]:
    """photo, mask, tile as uint8 [THUMBNAIL, THUMBNAIL, 3] on the CPU, stretched to a square; what is not
    read is left out, and a flagged photo's tile is black."""
    found = {"photo": _thumbnail(image)}
    if packed is not None:
        grey = _thumbnail(unpack(packed, mask_size, context.device)) * constant(255, np.uint8, context.device)
        found["mask"] = fn.cat(grey, grey, grey, axis=2)
    if tile is not None:
        found["tile"] = _tile(context, tile)
    return {name: node.cpu() for name, node in found.items()}


def _thumbnail(image: DataNode) -> DataNode:
    return fn.resize(image, size=[THUMBNAIL, THUMBNAIL])


def _tile(context: Context, tile: DataNode) -> DataNode:
    if tile.shape()[0] > 0:
        result = _thumbnail(decode(context, tile))
    else:
        result = constant(np.zeros((THUMBNAIL, THUMBNAIL, 3)), np.uint8, context.device, "HWC")
    return result
