"""Weighted k-nearest-neighbour classification of features: nothing is trained, nothing chosen."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from dali_bgaug.config import Options
from pipelines import LoaderConfig
from train import distributed
from train.features import Features, count_photos, extract_features, ready, same_classes, set_record
from train.networks import build_backbone

K, TEMPERATURE = 20, 0.07
_ROWS = 1024  # queries at a time: what is held is so many times the bank


class KnnOptions(Options):
    """k-NN evaluation while pre-training."""

    every_epochs: int = Field(default=0, ge=0)
    """After every so many epochs, once a checkpoint is written (0: never): `knn_accuracy` and its `knn_epoch`
    in the log and on the backbone's card."""
    bank: Path | None = Field(default=None, strict=False)
    """The memory bank of neighbours: shards, or a folder of class folders; by default the training set."""
    test: Path | None = Field(default=None, strict=False)
    """The photos to classify."""

    @model_validator(mode="after")
    def _check(self) -> "KnnOptions":
        if self.every_epochs and self.test is None:
            raise ValueError(f"every_epochs={self.every_epochs}: give knn.test, the photos to classify")
        return self


def nearest_classes(
    features: torch.Tensor,
    bank: torch.Tensor,
    bank_labels: torch.Tensor,
    neighbours: int = K,
    temperature: float = TEMPERATURE,
) -> torch.Tensor:
    """The class of each row by its nearest neighbours in a bank, weighted by exp(cosine / temperature).

    Source: Wu et al. 2018 (instance discrimination), section 3.4.

    Args:
        features: [N, D], the same on every rank.
        bank: [M, D], with labels int64 [M]: a rank's own part of it.
        neighbours: at most as many as there are on all ranks.
        temperature: of the weights.

    Returns:
        int64 [N], the same on every rank. Every rank must call this.
    """
    bank = F.normalize(bank, dim=1)
    classes = max(distributed.all_gather_objects(int(bank_labels.max()) + 1 if len(bank) else 0))
    answers = []
    for rows in F.normalize(features, dim=1).split(_ROWS):
        similarity, labels = _nearest(rows, bank, bank_labels, neighbours)
        if distributed.world_size() > 1:  # of every rank's nearest, the nearest of all
            similarity, labels = (_side_by_side(values) for values in (similarity, labels))
            similarity, index = similarity.topk(neighbours, dim=1)
            labels = labels.gather(1, index)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()  # by the largest: no overflow
        votes = torch.zeros(len(rows), classes, device=rows.device, dtype=rows.dtype)
        answers.append(votes.scatter_add_(1, labels, weights).argmax(dim=1))
    return torch.cat(answers)


def _nearest(
    rows: torch.Tensor, bank: torch.Tensor, labels: torch.Tensor, neighbours: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities and labels of the nearest, both [N, neighbours]; where there are fewer, of weight 0."""
    similarity, index = (rows @ bank.T).topk(min(neighbours, len(bank)), dim=1)
    missing = (0, neighbours - index.shape[1])
    return F.pad(similarity, missing, value=-torch.inf), F.pad(labels[index], missing)


def _side_by_side(values: torch.Tensor) -> torch.Tensor:
    """[N, k] of every rank -> [N, ranks * k]."""
    return torch.cat(distributed.all_gather_rows(values).split(len(values)), dim=1)


def knn_accuracy(bank: Features, test: Features, neighbours: int, temperature: float) -> float:
    """The share of a set's photos whose class their neighbours say.

    bank, test: this rank's shares; every rank must call this.
    """
    rows, labels = (distributed.all_gather_uneven(values) for values in test)
    return (nearest_classes(rows, *bank, neighbours, temperature) == labels).float().mean().item()


def knn(
    network: nn.Module,
    bank: LoaderConfig,
    test: LoaderConfig,
    device: torch.device,
    *,
    neighbours: int = K,
    temperature: float = TEMPERATURE,
    options: tuple[str, str] = ("--data", "--test"),
) -> dict[str, Any]:
    """Accuracy of weighted k-NN: the photos of `test` by those of `bank`; every rank must call this.

    Args:
        network: a backbone, on any device; on this one afterwards.
        bank, test: the sets, of `evaluation_config`.
        options: where the sets come from, for errors.

    Returns:
        `top1`, and what it was measured on.
    """
    same_classes(dict(zip(options, (bank.shards, test.shards), strict=True)))
    network = ready(network, device)
    sets = [extract_features(network, data, device, name) for data, name in ((bank, "bank"), (test, "test"))]
    photos = [count_photos(features) for features in sets]
    return {
        "top1": round(knn_accuracy(*sets, neighbours, temperature), 4),
        **{"k": neighbours, "temperature": temperature, "bn": "eval"},
        "data": set_record(bank.shards, photos[0]),
        "test": set_record(test.shards, photos[1]),
    }


def first_ranks_copy(name: str, backbone: nn.Module) -> nn.Module:
    """A backbone with the first rank's batch-norm statistics, as checkpoints have it: every rank's differ.

    Every rank must call this.
    """
    with torch.random.fork_rng(devices=[]):  # what it draws, training must not miss
        copy = build_backbone(name)
    copy.load_state_dict(distributed.broadcast({k: v.cpu() for k, v in backbone.state_dict().items()}))
    return copy
