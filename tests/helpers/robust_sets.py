"""Sets of empty files in the layouts of robustness sets, and classifiers whose answers are given."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dali_bgaug.views.options import NormaliseOptions
from train.evaluate.robustness.imagenet import WNIDS
from train.evaluate.robustness.protocol import UNREAD, EvaluatedNetwork, RobustnessSet
from train.evaluate.robustness.sets import open_set
from train.evaluate.robustness.source import SetOptions

Answers = Mapping[str, Mapping[str, float]]
"""Logits above 0, by class, of each photo."""
PARTIAL = SetOptions(partial=True)


def network(classes: list[str] | None = None, size: int = 224) -> EvaluatedNetwork:
    """A classifier of these classes, by default ImageNet's, whose weights do not matter."""
    names = [*WNIDS] if classes is None else classes
    return EvaluatedNetwork("made", nn.Identity(), names, size, NormaliseOptions(), "0" * 64, {})


def touch(folder: Path, *files: str) -> Path:
    """Empty files."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def open_one(
    name: str, folder: Path, classifier: EvaluatedNetwork | None = None, options: SetOptions = PARTIAL
) -> RobustnessSet:
    """The set in a folder, of which there must be one."""
    (one,) = open_set(name, folder, classifier or network(), options)
    return one


def evaluate(
    one: RobustnessSet, answers: Answers, classes: list[str] | None = None, unread: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The result of a set whose photos are answered so; photos are shown last first, two by two."""
    names = [*WNIDS] if classes is None else classes
    assert set(answers) == set(one.files)
    table = torch.zeros(len(one.files), len(names))
    for number, file in enumerate(one.files):
        for name, logit in answers[file].items():
            table[number, names.index(name)] = logit
    outcomes = np.full((len(one.files), len(one.score.criteria)), UNREAD, np.int16)
    for numbers in torch.arange(len(one.files)).flip(0).split(2):
        found = one.score.judge(_answering(table), numbers.float().view(-1, 1, 1, 1), numbers)
        assert found.dtype == torch.int64
        assert found.shape == (len(numbers), len(one.score.criteria))
        outcomes[numbers.numpy()] = found.numpy()
    outcomes[[one.files.index(file) for file in unread]] = UNREAD
    return one.score.summarise(outcomes)


def _answering(table: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Images that hold their numbers -> these rows of logits."""
    return lambda images: table[images[:, 0, 0, 0].long()]
