"""Background augmentation (Ryali, Schwab, Morcos: "Background Augmentations for Self-Supervised Learning").

    rm       BG_RM      the background becomes one grey level, drawn uniformly from [0, 1]
    random   BG_Random  the background becomes the tiled background of another photo of the batch
    swaps    BG_Swaps   random on query and key, independently, and a matched negative (MoCo-v2)

A donor is chosen while tiles are still encoded; only the tiles of views that use one are decoded.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert
from pydantic import Field

from dali_bgaug.config import Options
from dali_bgaug.graph.context import Context, constant
from dali_bgaug.graph.crop import Window, crop, decode
from dali_bgaug.graph.photometric import PhotometricOptions, photometric
from dali_bgaug.windows import UNIFORMS, CropOptions, choose_windows


class BackgroundOptions(Options):
    """Which background a view gets, and how often."""

    kind: Literal["none", "rm", "random", "swaps"] = "none"
    p_pos: float = Field(default=0.2, ge=0, le=1)
    """Probability that a view's background is replaced; drawn for each view by itself."""
    p_neg: float = Field(default=0.2, ge=0, le=1)
    """swaps: probability that the extra negative has the query's background (else it is a random image)."""
    warmup_epochs: int = Field(default=0, ge=0)
    """Both probabilities rise linearly from 0 over so many epochs."""

    @property
    def uses_tiles(self) -> bool:
        """Whether backgrounds come from other photos."""
        return self.kind in ("random", "swaps")


def choose_donors(uniforms: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """For every photo of a batch, another one whose tile may be used, uniformly: never itself.

    uniforms: U[0, 1) [N, views]; usable: bool [N]. Returns int32 [N, views], -1 where there is no other.
    """
    donors = np.flatnonzero(usable)
    rank = np.where(usable, np.cumsum(usable) - 1, len(donors))  # a donor's own place among the donors
    others = len(donors) - usable  # how many others each photo may choose from
    pick = np.minimum((uniforms * others[:, None]).astype(np.int32), others[:, None] - 1)
    pick += pick >= rank[:, None]  # step over oneself
    found = np.broadcast_to(others[:, None] > 0, pick.shape)
    return np.where(found, np.append(donors, -1)[np.where(found, pick, -1)], -1).astype(np.int32)


@do_not_convert
def donors(
    context: Context,
    tile: DataNode,
    shape: DataNode,
    views: int,
    crop: CropOptions,
    p: float,
    strength: Callable[[int], float],
) -> tuple[DataNode, DataNode, DataNode]:
    """Draw for each view whether its background is replaced, by whose tile, and by which window of it.

    A flagged photo has an empty tile and is never chosen. Where a batch has no other donor the background
    stays. A tile has its photo's proportions, so the window's law needs no decoding.

    Args:
        context: backend and seeds.
        tile: encoded, uint8 [bytes].
        shape: the photo's height and width, int64 [2 or 3].
        views: how many.
        crop: a view's; the window of a tile has no foreground constraint.
        p, strength: probability, and a factor on it that depends on the iteration.

    Returns:
        bool [views], whether the background is replaced; int32 [views], the donor's place in the batch;
        float32 [views, 4], the window.
    """
    free = crop.model_copy(update={"fg_min": 0.0})

    def choose(
        rng: np.random.Generator, iteration: int, tiles: list[np.ndarray], shapes: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = len(tiles)
        coins = rng.random((count, views)) < p * strength(iteration)
        chosen = choose_donors(rng.random((count, views)), np.array([len(tile) > 0 for tile in tiles]))
        index = np.maximum(chosen, 0)
        height, width = np.stack(shapes)[index.ravel(), :2].T
        uniforms = rng.random((count * views, 1, UNIFORMS), np.float32)
        window = choose_windows(uniforms, height, width, [free]).reshape(count, views, 4)
        return coins & (chosen >= 0), index, window

    return context.of_batch("donors", choose, tile, shape, outputs=3)


@do_not_convert
def others(context: Context, name: str) -> DataNode:
    """The place of another photo of the batch for every photo: int32 scalar."""
    everyone = np.ones(context.batch_size, bool)
    shape = (context.batch_size, 1)
    [other] = context.draw(name, lambda rng, _: [choose_donors(rng.random(shape), everyone)[:, 0]])
    return other


@do_not_convert
def grey_level(context: Context, name: str) -> DataNode:
    """BG_RM: one grey level per photo, uint8 [1, 1, 1]."""
    size = (context.batch_size, 1, 1, 1)
    [level] = context.draw(name, lambda rng, _: [rng.integers(0, 256, size, dtype=np.uint8)])
    return context.to_device(fn.reshape(level, layout="HWC"))


def donor_view(
    context: Context,
    name: str,
    tile: DataNode,
    window: Window,
    size: int,
    look: PhotometricOptions,
    hw_decoder_load: float,
) -> DataNode:
    """BG_Random: a donor's tile treated like a view, with its own crop, flip and photometric draw.

    uint8 [size, size, 3].
    """
    return photometric(context, name, crop(decode(context, tile, hw_decoder_load), window, size), look)


def composite(foreground: DataNode, background: DataNode, mask: DataNode, device: str) -> DataNode:
    """mask * foreground + (1 - mask) * background, uint8 [H, W, 3]; mask is uint8 [H, W, 1] of 0 and 1."""
    one = constant(1, np.uint8, device)
    return foreground * mask + background * (one - mask)
