"""Stages of a training: the networks of both phases, what each starts from and what it learns."""

from typing import NamedTuple

import numpy as np
import torch
from skimage.filters import threshold_otsu

from dali_bgaug.errors import UserError
from train.saliency.config import SaliencyConfig
from train.saliency.photos import PhotoSet

LATER_THRESHOLD = 0.5
"""Foreground on maps that a network has averaged."""


class Trunk(NamedTuple):
    """What every stage starts from."""

    weights: dict[str, torch.Tensor] | None
    """None: random ones."""
    mean: list[float]
    """Of photos in [0, 1], by channel, that its input is normalised by."""
    std: list[float]
    sha256: str
    """Hash of the weights; "random" without."""


class Stage(NamedTuple):
    """A network from its first step to its last: a round of phase 1, or phase 2."""

    name: str
    labels: tuple[tuple[str, int], ...]
    """Maps it learns: a voter, and after how many rounds."""
    lr: float
    epochs: int
    beta2: float
    flip: bool
    """Whether half of the photos are mirrored."""
    averages: tuple[str, int] | None
    """The voter whose next maps it averages, and their round; None in phase 2."""


def stages(config: SaliencyConfig) -> list[Stage]:
    """All stages of a training, in order."""
    refine, fuse = config.refine, config.fuse
    rounds = len(refine.lr)
    first = [
        Stage(
            f"{voter}, round {number + 1} of {rounds}",
            ((voter, number),),
            *(lr, refine.epochs, refine.beta2),
            flip=False,  # these networks are there for these photos only
            averages=(voter, number + 1),
        )
        for voter in config.maps
        for number, lr in enumerate(refine.lr)
    ]
    labels = tuple((voter, rounds) for voter in config.maps)
    return [*first, Stage("all voters", labels, fuse.lr, fuse.epochs, fuse.beta2, fuse.flip, averages=None)]


class Labels(NamedTuple):
    """Maps that a stage learns."""

    maps: np.ndarray
    """uint8 [N, side, side], in a file."""
    threshold: float
    """From which value, of 0 to 1, on they are foreground."""


def read_labels(config: SaliencyConfig, data: PhotoSet, stage: Stage) -> list[Labels]:
    """The maps a stage learns.

    Raises:
        UserError: a voter's maps have one value only.
    """
    found = []
    for voter, round_ in stage.labels:
        maps = np.load(data.maps(voter, round_), mmap_mode="r")
        if round_:
            threshold = LATER_THRESHOLD
        elif voter in config.thresholds:
            threshold = config.thresholds[voter]
        else:
            threshold = _otsu(maps, voter)
        found.append(Labels(maps, threshold))
    return found


def _otsu(maps: np.ndarray, voter: str) -> float:
    counts = sum(np.bincount(one.ravel(), minlength=256) for one in maps)
    if np.count_nonzero(counts) < 2:
        raise UserError(f"maps.{voter}: all its maps are of one value; leave this voter out")
    level = int(threshold_otsu(hist=(counts, np.arange(256))))
    return (level + 0.5) / 255  # between two levels, however a device rounds these
