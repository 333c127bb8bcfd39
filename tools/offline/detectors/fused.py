"""Fusion of the detectors without weights: their four maps are pooled and refined by the random field.

Their errors differ, so together they are better than the best of them. A voter counts by how much of its map
the others' mean explains, in each photo anew (the squared correlation): one that sees what no other sees
counts little. Pooled is the mean of two means: of the maps, which forgives a voter that has missed the
object, and of their log odds, which is cautious. Where voters disagree it stays below .5 all over the photo;
so Otsu's threshold of each photo becomes .5, by scaling the odds. The field takes that for the probability of
foreground and draws its greys to edges; foreground is from .5 on, where the field changes the label.

No number here is fitted to truth: the voters' and the field's are those of their papers and programs, but for
rbd's, which says where its own are from. The rules were chosen among several, though, by 250 to 500 photos of
ASD and 75 of ImageNet with u2netp's masks (`benchmarks/detectors.md`). For speed `dsr` has three of its eight
scales, and `dsr` and `hs` work on photos of 200 pixels.
"""

from typing import Literal

import numpy as np
from PIL import Image
from skimage.filters import threshold_otsu

from tools.offline.detectors.base import Detector, DetectorOptions
from tools.offline.detectors.dsr import DSR, DSROptions
from tools.offline.detectors.hs import HS, HSOptions
from tools.offline.detectors.mc import MC, MCOptions
from tools.offline.detectors.rbd import RBD, RBDOptions
from tools.offline.detectors.superpixels import shrink

SUREST = 0.1
"""In log odds no voter is surer than this, so that none decides alone."""


class FusedOptions(DetectorOptions):
    """Options of the fusion."""

    THRESHOLD = 0.5

    name: Literal["fused"] = "fused"
    crf: bool = True
    """Refine the mean by the random field."""

    def _build(self) -> "Fused":
        return Fused()


class Fused(Detector):
    """Fusion of the detectors without weights: the mean of their maps."""

    def __init__(self) -> None:
        self.detectors = (
            RBD(RBDOptions()),
            MC(MCOptions()),
            DSR(DSROptions(scales=3, side=200)),
            HS(HSOptions()),
        )

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """A photo, uint8 [H, W, 3] -> its map at the largest size, float [h, w] in [0, 1]."""
        small = {side: shrink(image, side) for side in {each.options.side for each in self.detectors}}
        height, width = small[max(small)].rgb.shape[:2]
        maps = [each.detect(small[each.options.side]).astype(np.float32) for each in self.detectors]
        same = [Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in maps]
        return centred(pooled(np.stack(same)))


def pooled(maps: np.ndarray) -> np.ndarray:
    """Maps [N, h, w] in [0, 1] -> the mean of their weighted mean and their logarithmic opinion pool."""
    weights = agreement(maps)
    clipped = np.clip(maps, SUREST, 1 - SUREST)
    log_odds = np.average(np.log(clipped / (1 - clipped)), 0, weights)
    return (np.average(maps, 0, weights) + 1 / (1 + np.exp(-log_odds))) / 2


def agreement(maps: np.ndarray) -> list[float]:
    """The squared correlation of every map with the mean of the others; 0 if negative, all 1 if none is."""
    weights = []
    for number, own in enumerate(maps):
        others = np.delete(maps, number, 0).mean(0)
        scale = own.std() * others.std()
        correlation = ((own - own.mean()) * (others - others.mean())).mean() / scale if scale else 0.0
        weights.append(max(float(correlation), 0.0) ** 2)
    return weights if any(weights) else [1.0] * len(maps)


def centred(saliency: np.ndarray) -> np.ndarray:
    """A map in [0, 1] with its odds scaled so that Otsu's threshold becomes .5; a constant one as it is."""
    if not np.ptp(saliency):
        return saliency
    threshold = threshold_otsu(saliency)
    odds = saliency * (1 - threshold)
    return odds / (odds + (1 - saliency) * threshold)
