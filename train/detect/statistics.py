"""Batch norm's statistics for testing, measured anew ("precise BN"; Wu and Johnson 2021, section 3)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def measure_statistics(network: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Replace running averages, which lag behind the weights, by the mean of batches' own statistics.

    forward: passes a batch through the network. Where ranks share statistics, all ranks must call this.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    sums = [[torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)] for norm in norms]
    count = 0
    network.train()
    for norm in norms:
        norm.momentum = 1.0  # a pass then leaves its own statistics
    for batch in batches:
        forward(batch)
        count += 1
        for norm, (mean, var) in zip(norms, sums, strict=True):
            mean += norm.running_mean
            var += norm.running_var
    for norm, momentum, (mean, var) in zip(norms, momenta, sums, strict=True):
        norm.momentum = momentum
        norm.running_mean.copy_(mean / count)
        norm.running_var.copy_(var / count)
