"""Accuracy of a classifier where a photo may have several right classes, and only some may be asked for."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from train.evaluate.robustness.protocol import UNREAD

NONE = -1
"""In truths: no class; a photo without any is not counted."""


class Criterion(NamedTuple):
    """A way to be right: the likeliest of some classes is one of the photo's."""

    name: str
    columns: np.ndarray
    """Columns of logits among which the largest is the answer: int64 [k]."""
    truths: np.ndarray
    """Columns that are right for each photo: int64 [photos, most], filled up with NONE."""


class Accuracy:
    """Shares of photos that are right, by each criterion; the first one's is the value: a `Score`."""

    def __init__(self, criteria: Sequence[Criterion], metric: str) -> None:
        """metric: of the first criterion, in words."""
        self.metric = metric
        self.criteria = tuple(criterion.name for criterion in criteria)
        self._counted = np.stack([(criterion.truths != NONE).any(axis=1) for criterion in criteria], axis=1)
        self._tables = [(torch.from_numpy(c.columns), torch.from_numpy(c.truths)) for c in criteria]

    def judge(
        self, network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """1 if the answer is right: see `Score.judge`."""
        self._tables = [(c.to(images.device), t.to(images.device)) for c, t in self._tables]
        logits = network(images)
        right = []
        for columns, truths in self._tables:
            answers = columns[logits[:, columns].argmax(dim=1)]
            right.append((answers[:, None] == truths[numbers]).any(dim=1))
        return torch.stack(right, dim=1).long()

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """`value`, `metric`, `photos` of the first criterion; `accuracies` of all, if they are several, and
        `counted`, their photos, if these differ: see `Score.summarise`."""
        counted = self._counted & was_read(outcomes)[:, None]
        photos = counted.sum(axis=0).tolist()
        right = (outcomes * counted).sum(axis=0, dtype=np.int64).tolist()
        shares = [share(*pair) for pair in zip(right, photos, strict=True)]
        result = {"value": shares[0], "metric": self.metric, "photos": photos[0]}
        if len(shares) > 1:
            result["accuracies"] = dict(zip(self.criteria, shares, strict=True))
            if len(set(photos)) > 1:
                result["counted"] = dict(zip(self.criteria, photos, strict=True))
        return result


def was_read(outcomes: np.ndarray) -> np.ndarray:
    """Rows of outcomes [photos, criteria] whose photo could be decoded: bool [photos]."""
    return (outcomes != UNREAD).all(axis=1)


def share(part: int, whole: int) -> float | None:
    """A share as results have it; None of nothing."""
    return round(part / whole, 4) if whole else None


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what there is, unrounded; None of nothing."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def single(columns: Sequence[int] | np.ndarray) -> np.ndarray:
    """One truth a photo, as `Criterion.truths`: int64 [photos, 1]."""
    return np.asarray(columns, np.int64)[:, None]


def several(columns: Sequence[Sequence[int]]) -> np.ndarray:
    """Truths of photos that have any number of them: int64 [photos, most]."""
    truths = np.full((len(columns), max(map(len, columns), default=0) or 1), NONE, np.int64)
    for row, those in zip(truths, columns, strict=True):
        row[: len(those)] = those
    return truths
