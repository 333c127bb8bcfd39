"""The mask of a view, from bit-packed rows."""

import numpy as np
from nvidia.dali import fn, math
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.context import constant
from dali_bgaug.graph.crop import Window, crop


def unpack(packed: DataNode, size: int, device: str) -> DataNode:
    """Bit-packed mask -> uint8 [S, S, 1] of 0 and 1, layout HWC."""
    bits = constant(1 << np.arange(7, -1, -1), np.uint8, device)
    rows = fn.reshape(packed, shape=[size, size // 8, 1])
    mask = math.min(rows & bits, constant(1, np.uint8, device))
    return fn.reshape(mask, shape=[size, size, 1], layout="HWC")


def view_mask(packed: DataNode, size: int, window: Window, view_size: int, device: str) -> DataNode:
    """The mask cropped, flipped and resized exactly as the view of `window`: uint8 [v, v, 1], 1 = foreground.

    Resizing rounds to whole numbers, which puts the edge where foreground and background cover a pixel alike.
    """
    return crop(unpack(packed, size, device), window, view_size)
