"""The parts of a robustness evaluation: a network, a set of photos, a score of its answers.

A score's outcomes are kept for every photo, so that each counts once whatever the ranks, and what cannot be
read is known by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from dali_bgaug.views.options import NormaliseOptions

UNREAD = -1
"""Outcome of a photo that could not be decoded; it is left out of every count and listed."""
NOT_FINITE = -2
"""Outcome of a photo of which a network says NaN or infinity: the set has no result."""
STANDARD_RESIZE = 8 / 7
"""Short side before a central crop, over the crop's: 256 / 224."""


class EvaluatedNetwork(NamedTuple):
    """A classifier with all that is needed to show it photos and to name its answers."""

    name: str
    """A row of a report."""
    network: nn.Module
    """Normalised images [n, 3, size, size] -> logits [n, classes]; in evaluation mode, on the CPU."""
    classes: list[str]
    """Names in order of logits: wnids, or folder names of its training set."""
    size: int
    """Of its central crops, in pixels."""
    normalise: NormaliseOptions
    sha256: str
    """Of its weights."""
    record: dict[str, Any]
    """What results say of it beside: backbone, mode of batch norm, recipe, …"""


class Score(Protocol):
    """What counts as right in a set."""

    criteria: tuple[str, ...]
    """Names of the outcomes of a photo."""

    def judge(
        self, network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """Outcomes of some photos: int64 [n, criteria], on the images' device; 0 or 1, or whatever the score
        counts, never below 0.

        Args:
            network: normalised images -> logits [n, classes].
            images: normalised, float32 [n, 3, size, size].
            numbers: which photos of the set they are, int64 [n], on the images' device.
        """

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """The result of a set.

        Args:
            outcomes: int16 [photos, criteria]; rows of UNREAD are left out.

        Returns:
            `value`, the number that stands in a report, a share from 0 to 1; `metric`, its definition in
            words; `photos` counted; and more, by protocol.
        """


@dataclass(frozen=True)
class RobustnessSet:
    """A set of photos under one protocol."""

    name: str
    """As the user calls it: a column of a report."""
    protocol: str
    """An entry of `sets.PROTOCOLS`."""
    folder: Path
    files: list[str]
    """Paths below the folder, in the order of the numbers that scores know photos by."""
    score: Score
    resize: float | None = STANDARD_RESIZE
    """Short side before the central crop, over the crop's; None: no resize, the central crop alone."""
    border: int = 0
    """Pixels cut off on every side before."""
    record: dict[str, Any] | None = None
    """What the result says of the set beside: photos and classes found and expected, files of truths, …"""
