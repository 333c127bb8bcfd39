"""The mask of a view, from bit-packed rows."""

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.context import constant
from dali_bgaug.graph.crop import crop


def unpack(packed: DataNode, size: int, device: str) -> DataNode:
    """Bit-packed mask -> uint8 [S, S, 1], zero or not, layout HWC."""
    bits = constant(1 << np.arange(7, -1, -1), np.uint8, device)
    rows = fn.reshape(packed, shape=[size, size // 8, 1]) & bits
    mask = fn.cast(rows != 0, dtype=types.UINT8) * constant(255, np.uint8, device)
    return fn.reshape(mask, shape=[size, size, 1], layout="HWC")


def view_mask(packed: DataNode, size: int, window: DataNode, view_size: int, device: str) -> DataNode:
    """The mask cropped, flipped and resized exactly as the view of `window`: uint8 [v, v, 1], 1 = foreground."""
    soft = crop(unpack(packed, size, device), window, view_size)
    return fn.cast(soft > 127, dtype=types.UINT8)
