"""Background augmentation (Ryali, Schwab, Morcos: "Background Augmentations for Self-Supervised Learning").

    rm       BG_RM      the background becomes one grey level, drawn uniformly from [0, 1]
    random   BG_Random  the background becomes the tiled background of another photo of the batch
    swaps    BG_Swaps   random on query and key, independently, and a matched negative (MoCo-v2)

Donors are chosen before anything is decoded (`dali_bgaug.donors`); only tiles that are used are decoded.
"""

from typing import Literal

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert
from pydantic import Field, model_validator

from dali_bgaug.config import Options, Range
from dali_bgaug.graph.context import Context, constant
from dali_bgaug.graph.crop import Window, crop, decode
from dali_bgaug.graph.masks import DistortionOptions
from dali_bgaug.graph.photometric import PhotometricOptions, photometric


class BackgroundOptions(Options):
    """Which background a view gets, and how often."""

    kind: Literal["none", "rm", "random", "swaps"] = "none"
    p_pos: float = Field(default=0.2, ge=0, le=1)
    """Probability that a view's background is replaced; drawn for each view by itself."""
    warmup_epochs: int = Field(default=0, ge=0)
    """All probabilities rise linearly from 0 over so many epochs."""
    stage: Literal["after", "before"] = "after"
    """after: crop, flip, photometric, then the background, the paper's order. before: the photo gets the
    background first (one per view) and both go through the view's crop, flip and photometric (RotNet)."""
    grey: Range = (0.0, 1.0)
    """rm: range of the grey level, drawn uniformly; 0 black, 1 white."""

    donor: Literal["full", "crop", "none"] = "full"
    """What a donor's tile goes through. full: a crop, a flip and a photometric draw of its own, like a view;
    crop: crop and flip only; none: the whole tile, stretched."""
    views_per_donor: int = Field(default=4, ge=1)
    """Views of a batch, of different photos, that share one donor's treated tile on average (never two views
    of one photo while there is another donor). More is cheaper; with 1 there are as many donors to choose
    from as views that want one."""

    p_neg: float = Field(default=0.2, ge=0, le=1)
    """swaps: probability that a negative has its query's background (else it is a random image)."""
    negatives: int = Field(default=1, ge=1)
    """swaps: extra negatives per query."""
    matches: Literal["query", "key"] = "query"
    """swaps: the view whose background a negative takes."""
    coupled: bool = False
    """swaps: a negative is matched where the key's background was replaced (p_neg is not used); otherwise it
    has a coin of its own. Either way only if foreground is in the window of the view it `matches`."""

    distortion: DistortionOptions = DistortionOptions()

    @model_validator(mode="after")
    def _check(self) -> "BackgroundOptions":
        if not 0 <= self.grey[0] <= self.grey[1] <= 1:
            raise ValueError(f"grey={list(self.grey)} must be two increasing numbers in [0, 1]")
        if self.stage == "before" and self.uses_tiles and self.donor != "none":
            raise ValueError(
                f"donor={self.donor}: with stage=before a tile lies behind the photo and shares the view's "
                "crop, flip and photometric; set donor: none"
            )
        return self

    @property
    def uses_tiles(self) -> bool:
        """Whether backgrounds come from other photos."""
        return self.kind in ("random", "swaps")


@do_not_convert
def grey_level(context: Context, name: str, levels: tuple[float, float]) -> DataNode:
    """BG_RM: one grey level per photo, float32 [1, 1, 1] of 0 to 255."""
    shape = (context.batch_size, 1, 1, 1)
    [level] = context.draw(name, lambda rng, _: [draw_grey(levels, shape[0], rng).reshape(shape)])
    return context.to_device(fn.reshape(level, layout="HWC"))


def draw_grey(levels: tuple[float, float], count: int, rng: np.random.Generator) -> np.ndarray:
    """BG_RM's grey level of each photo, float32 [count] of 0 to 255."""
    low, high = (255 * level for level in levels)
    return rng.uniform(low, high, count).astype(np.float32)


def treat_tiles(
    context: Context,
    name: str,
    used: DataNode,
    tile: DataNode,
    window: Window,
    size: int,
    look: PhotometricOptions | None,
) -> DataNode:
    """Tiles of the donors that are used, cropped, flipped and given a look: float [size, size, 3].

    used: bool, whether this photo is a donor; elsewhere the result is a stand-in that nobody reads.
    """
    if used:
        view = crop(decode(context, tile), window, size)
        if look is not None:
            view = photometric(context, name, view, look)
        result = view
    else:
        result = constant(np.zeros((1, 1, 3)), np.float32, context.device, layout="HWC")
    return result


def composite(foreground: DataNode, background: DataNode, mask: DataNode) -> DataNode:
    """mask * foreground + (1 - mask) * background, float [H, W, 3]; mask is uint8 [H, W, 1] of 0 and 1.

    In this form (one product less) within 2e-5 of a grey level of both where the mask says so.
    """
    return background + (foreground - background) * mask


def put_behind(wanted: DataNode, foreground: DataNode, background: DataNode, mask: DataNode) -> DataNode:
    """`composite` where it is wanted (bool, on the CPU), else the foreground's image as it is."""
    if wanted:
        result = composite(foreground, background, mask)
    else:
        result = foreground
    return result
