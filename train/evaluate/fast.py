"""A linear probe in one go: features extracted once, heads fitted on them for several rates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from pipelines import LoaderConfig
from train import distributed
from train.evaluate.backbone import Loaded
from train.evaluate.classifier import TOP, right_in_top, shares
from train.evaluate.heads import RATES, Fitted, fit_and_choose
from train.features import count_photos, extract_features, ready, same_classes, set_record


class FastClassifier(NamedTuple):
    """A backbone, and heads fitted on its features."""

    backbone: nn.Module
    fitted: Fitted
    result: dict[str, Any]
    """The rates, their accuracy on photos held out, the rate chosen, and on what they were fitted."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """[n, 3, H, W] -> [n, classes], by the head chosen."""
        return self.fitted.heads.logits(self.backbone(images).float())[self.fitted.best]


def fit_fast(
    backbone: Loaded,
    data: LoaderConfig,
    device: torch.device,
    *,
    option: str = "--data",
    rates: Sequence[float] = RATES,
) -> FastClassifier:
    """Extract features of a labelled set and fit a head for every rate; every rank must call this.

    data: the set, of `evaluation_config`. option: where it comes from, for errors.
    """
    classes = same_classes({option: data.shards})
    network = ready(backbone.network, device)
    features = extract_features(network, data, device, "features")
    fitted = fit_and_choose(features, len(classes), rates=rates)
    result = {
        "rates": list(fitted.rates),
        "held_out": [round(value, 4) for value in fitted.held_out],
        "rate": fitted.rates[fitted.best],
        "data": set_record(data.shards, count_photos(features)),
    }
    return FastClassifier(network, fitted, result)


def linear_fast(
    backbone: Loaded,
    data: LoaderConfig,
    test: LoaderConfig,
    device: torch.device,
    *,
    rates: Sequence[float] = RATES,
) -> dict[str, Any]:
    """Fit on the photos of `data`, count on those of `test`; every rank must call this.

    Returns:
        Accuracy of the rate chosen (by photos of `data`), and `top1_by_rate` of all.
    """
    same_classes({"--data": data.shards, "--test": test.shards})
    found = fit_fast(backbone, data, device, rates=rates)
    features = extract_features(found.backbone, test, device, "test")
    counts = [right_in_top(logits, features.labels) for logits in found.fitted.heads.logits(features.rows)]
    right = distributed.all_reduce_sum(torch.stack(counts)).long().tolist()
    photos = count_photos(features)
    return {
        **shares(right[found.fitted.best], photos),
        "bn": "eval",
        **{"backbone": backbone.config.backbone, "weights": backbone.sha256},
        **found.result,
        "top1_by_rate": [shares(counts, photos)[f"top{TOP[0]}"] for counts in right],
        "test": set_record(test.shards, photos),
    }
