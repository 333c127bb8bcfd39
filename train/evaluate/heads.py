"""Linear classifiers on features that were extracted once: several learning rates at the same time.

Quick, where a linear probe by a recipe sees every photo anew each epoch: features are of central crops, so
its numbers are not a recipe's. They are good for comparing backbones with each other.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from dali_bgaug.errors import UserError
from train import distributed
from train.features import Features
from train.schedules import scaled_lr, warmup_cosine

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Learning rates per 256 photos."""
EPOCHS, BATCH, MOMENTUM = 50, 256, 0.9
_ROWS = 4096  # worked on at a time
HOLD_OUT = 10
"""One photo of so many is held out, to choose the rate by."""


class Heads(NamedTuple):
    """L linear classifiers on standardised features."""

    mean: torch.Tensor
    """Mean of the features they were fitted on, [D]."""
    scale: torch.Tensor
    """One over the standard deviation of these features, [D]."""
    weight: torch.Tensor
    """[L, D, C]."""
    bias: torch.Tensor
    """[L, 1, C]."""

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [L, N, C]."""
        x = (rows - self.mean) * self.scale
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)

    def layer(self, number: int) -> nn.Linear:
        """One of the classifiers as a layer on the CPU, standardisation included: [N, D] -> [N, C]."""
        weight, scale = self.weight[number], self.scale[:, None]
        linear = nn.Linear(*weight.shape)
        linear.weight.data = (weight * scale).T.cpu().contiguous()
        linear.bias.data = (self.bias[number, 0] - (self.mean * self.scale) @ weight).cpu()
        return linear


class Fitted(NamedTuple):
    """Heads, and which of them to take."""

    heads: Heads
    """Fitted on all photos."""
    rates: tuple[float, ...]
    held_out: list[float]
    """Accuracy of each rate on photos that were held out while it was fitted on the others."""

    @property
    def best(self) -> int:
        """The index of the rate that was best on the photos held out."""
        return max(range(len(self.rates)), key=self.held_out.__getitem__)


def fit_and_choose(
    features: Features, classes: int, *, rates: Sequence[float] = RATES, epochs: int = EPOCHS, seed: int = 0
) -> Fitted:
    """Fit a classifier for every rate, and choose among them without looking at a test set.

    features: this rank's share; every rank must call this. The rate is chosen by one photo in HOLD_OUT, then
    all are fitted again on all photos.
    """
    wrong = [rate for rate in rates if not 0 < rate < math.inf]
    if wrong or not rates:
        raise UserError(f"--rates={' '.join(map(str, rates))}: learning rates must be above 0")
    fewest = min(distributed.all_gather_objects(len(features.rows)))
    if fewest < 2:
        raise UserError(f"a rank has {fewest} photos to fit on, two are needed; take fewer ranks")
    order = torch.randperm(len(features.rows), generator=torch.Generator().manual_seed(seed))
    order = order.to(features.rows.device)
    kept, others = order.tensor_split([max(1, len(order) // HOLD_OUT)])
    title, options = "heads, to choose a rate", {"epochs": epochs, "seed": seed}
    trial = fit_heads(features, classes, rates, chosen=others, title=title, **options)
    right = torch.zeros(len(rates), dtype=torch.double, device=order.device)
    for part in kept.split(_ROWS):
        right += (trial.logits(features.rows[part]).argmax(dim=2) == features.labels[part]).sum(dim=1)
    counts = distributed.all_reduce_sum(torch.cat([right, right.new_tensor([len(kept)])]))
    heads = fit_heads(features, classes, rates, title="heads, on all photos", **options)
    return Fitted(heads, tuple(rates), (counts[:-1] / counts[-1]).tolist())


def fit_heads(
    features: Features,
    classes: int,
    rates: Sequence[float] = RATES,
    *,
    chosen: torch.Tensor | None = None,
    epochs: int = EPOCHS,
    batch: int = BATCH,
    seed: int = 0,
    title: str = "heads",
) -> Heads:
    """Softmax regression by SGD with momentum .9 and a cosine to 0, without weight decay; weights start at 0.

    Args:
        features: this rank's share; gradients are averaged over ranks, so all get the same heads.
        classes: how many there are.
        rates: a head for each, per 256 photos a step.
        chosen: which rows to fit on, int64 [n]; by default all.
        epochs, batch: batch is that of all ranks together; all of the smallest share, if that is less.
        seed: of the order of photos.
        title: of the progress bar.
    """
    rows, labels = features
    device, ranks = rows.device, distributed.world_size()
    if chosen is None:
        chosen = torch.arange(len(rows), device=device)
    mean, scale = _standard(rows, chosen)
    share = min(distributed.all_gather_objects(len(chosen)))
    size = min(math.ceil(batch / ranks), share)
    weight = torch.zeros(len(rates), rows.shape[1], classes, device=device)
    bias = torch.zeros(len(rates), 1, classes, device=device)
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    rate = torch.tensor([scaled_lr(value, size * ranks) for value in rates], device=device)[:, None, None]
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (share // size)
    with tqdm(total=steps, desc=title, unit="step", disable=distributed.rank() > 0) as bar:
        for epoch in range(epochs):
            order = chosen[torch.randperm(len(chosen), generator=generator).to(device)]
            for number, index in enumerate(order[: share // size * size].split(size)):
                step = epoch * (share // size) + number
                x, target = (rows[index] - mean) * scale, F.one_hot(labels[index], classes)
                logits = torch.baddbmm(bias, x.expand(len(rates), -1, -1), weight)
                error = (logits.softmax(dim=2) - target) / size  # the gradient of the mean cross-entropy
                gradients = (x.T @ error, error.sum(dim=1, keepdim=True))
                factor = rate * warmup_cosine(step, steps, 0, 1.0)
                for value, speed, gradient in zip((weight, bias), velocity, gradients, strict=True):
                    speed.mul_(MOMENTUM).add_(distributed.all_reduce_mean(gradient))
                    value.sub_(factor * speed)
                bar.update()
    return Heads(mean, scale, weight, bias)


def _standard(rows: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and one over the standard deviation of every feature, over all ranks; [D] each.

    A feature that is constant gets 0.
    """
    sums = torch.zeros(3, rows.shape[1], dtype=torch.double, device=rows.device)
    for index in chosen.split(_ROWS):  # in double precision a set of features would be twice as large
        part = rows[index].double()
        sums += torch.stack([torch.full_like(part[0], len(part)), part.sum(0), part.square().sum(0)])
    count, total, squares = distributed.all_reduce_sum(sums)
    if not torch.isfinite(squares).all():
        raise UserError("the backbone's features are not finite numbers; its weights are damaged")
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    scale = torch.where(deviation > 1e-6 * mean.abs().clamp_min(1e-6), 1 / deviation, 0.0)
    return mean.float(), scale.float()
