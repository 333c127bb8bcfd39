"""Backbones, and batch normalisation in groups."""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

FEATURES = {"resnet18": 512, "resnet50": 2048}


def backbone(name: str) -> nn.Module:
    """A torchvision ResNet without its classifier: [N, 3, H, W] -> [N, FEATURES[name]]."""
    network = getattr(torchvision.models, name)(weights=None)
    network.fc = nn.Identity()
    return network


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose statistics come from `groups` equal parts of the batch, each normalised by
    its own.

    One device then sees what so many devices would see without SyncBN. Running statistics follow the first
    group, as a checkpoint of such a cluster holds those of its first device.
    """

    groups = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same shape."""
        if self.groups == 1 or not self.training:
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        running = [(self.running_mean, self.running_var)] + [(None, None)] * (self.groups - 1)
        parts = [
            F.batch_norm(part, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
            for part, (mean, var) in zip(x.tensor_split(self.groups), running, strict=True)
        ]
        return torch.cat(parts)


def group_batch_norm(network: nn.Module) -> None:
    """Turn every BatchNorm2d of `network` into a GroupedBatchNorm2d, in place; weights and state keep their
    names."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GroupedBatchNorm2d


def set_groups(network: nn.Module, groups: int) -> None:
    """How many parts each batch of `network` is normalised in from now on."""
    for module in network.modules():
        if isinstance(module, GroupedBatchNorm2d):
            module.groups = groups
