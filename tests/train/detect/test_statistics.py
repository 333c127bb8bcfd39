"""Batch norm's statistics, measured anew."""

import pytest
import torch
from torch import nn

from train.detect.statistics import measure_statistics


def test_the_mean_of_batches_own() -> None:
    """Means 2 and 6, unbiased variances 2 and 8; the momentum stays, and weights do."""
    network = nn.BatchNorm1d(1, momentum=0.1)
    network.running_mean.fill_(100)
    batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [8.0]])]
    measure_statistics(network, batches, network)
    assert (network.running_mean.item(), network.running_var.item()) == pytest.approx((4, 5))
    assert (network.momentum, network.weight.item(), network.weight.grad) == (0.1, 1, None)
