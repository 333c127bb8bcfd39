"""Batch normalisation over groups of photos of a given size, whatever the number of devices.

How many photos share batch statistics is part of a recipe: 32 for MoCo-v2, 512 for BYOL and SwAV. A rank
with more photos normalises them in parts; ranks with fewer share theirs.

    bn_group   photos of a rank   what happens
    32         32                 ordinary batch norm
    32         256                eight groups, each normalised by its own statistics
    512        64                 statistics are shared by eight ranks (SyncBN), where the method wants that
    null       any                every rank its own
"""

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_bgaug.errors import UserError
from train.distributed import new_group, rank, world_size
from train.networks import precise


class Grouping(NamedTuple):
    """The grouping of batch norm: `groups` parts of each rank's batch, or `ranks` together."""

    groups: int = 1
    ranks: int = 1


def plan_groups(bn_group: int | None, photos: int, synchronise: bool, accumulate: int = 1) -> Grouping:
    """Decide how `bn_group` photos come to share statistics.

    Args:
        bn_group: photos that should; None leaves each rank's forward pass its own statistics.
        photos: of a rank in one forward pass.
        synchronise: whether ranks may share statistics; otherwise one with fewer photos uses what it has.
        accumulate: forward passes a step. With more than one the statistics must not depend on how many.

    Raises:
        UserError: the photos do not divide into groups, or accumulation would change the statistics.
    """
    want, ranks = f"method.bn_group={bn_group}", world_size()
    accumulated = (
        f"accumulate={accumulate}: batch statistics would be those of a part of the batch; set "
        f"method.bn_group to a size that one pass of all ranks still fills ({ranks} ranks of {photos} photos)"
    )
    if bn_group is None:
        if accumulate > 1:
            raise UserError(accumulated)
        return Grouping()
    if photos >= bn_group:
        if photos % bn_group:
            raise UserError(f"{want}: must divide a rank's batch, {photos} (data.batch_size over the ranks)")
        return Grouping(groups=photos // bn_group)
    if accumulate > 1 and (not synchronise or photos * ranks < bn_group):
        raise UserError(accumulated)
    if not synchronise:
        return Grouping()
    if photos * ranks <= bn_group:
        return Grouping(ranks=ranks)
    if bn_group % photos or ranks % (bn_group // photos):
        raise UserError(
            f"{want}: {ranks} ranks of {photos} photos cannot be cut into such groups; take a multiple of "
            f"{photos} that divides {photos * ranks}"
        )
    return Grouping(ranks=bn_group // photos)


class GroupedBatchNorm(_BatchNorm):
    """Batch normalisation of `groups` equal parts of the batch, each by its own statistics, or of all ranks
    of a process group by common ones.

    Running statistics follow the first group, as a checkpoint of a cluster holds those of its first device.
    """

    groups = 1
    process_group: dist.ProcessGroup | None = None

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Takes [N, C], [N, C, L] and [N, C, H, W]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape, normalised."""
        if not self.training or (self.groups == 1 and self.process_group is None):
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        if self.process_group is not None:
            return self._across_ranks(x)
        running = [(self.running_mean, self.running_var)] + [(None, None)] * (self.groups - 1)
        parts = [
            F.batch_norm(part, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
            for part, (mean, var) in zip(x.tensor_split(self.groups), running, strict=True)
        ]
        return torch.cat(parts)

    def _across_ranks(self, x: torch.Tensor) -> torch.Tensor:
        """SyncBN for what torch's does not run on: CPUs. Every rank has as many photos."""
        axes, ranks = [0, *range(2, x.dim())], dist.get_world_size(self.process_group)
        shape, dtype = [1, -1] + [1] * (x.dim() - 2), x.dtype
        x = precise(x)
        mean = _SumOverRanks.apply(x.mean(axes), self.process_group) / ranks
        centred = x - mean.view(shape)
        var = _SumOverRanks.apply(centred.square().mean(axes), self.process_group) / ranks
        with torch.no_grad():
            count = x.numel() // x.shape[1] * ranks
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        normalised = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(dtype)


class _SumOverRanks(torch.autograd.Function):
    """The sum over the ranks of a group; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group, total = group, x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


@cache
def _neighbours(ranks: int, device: str) -> dist.ProcessGroup | None:
    """This rank's group of so many; every rank must call this. None: all ranks, on a GPU."""
    if ranks == world_size() and device == "cuda":
        return None  # NCCL keeps DDP's gradients in order by itself
    groups = [new_group(list(range(start, start + ranks))) for start in range(0, world_size(), ranks)]
    return groups[rank() // ranks]


def group_batch_norm(network: nn.Module, grouping: Grouping, device: str) -> nn.Module:
    """Make every batch norm of `network` normalise as planned; weights and state keep their names.

    Every rank must call this for the same networks in the same order. Returns the network, changed in place.
    """
    if grouping == Grouping():
        return network
    group = None
    if grouping.ranks > 1:
        group = _neighbours(grouping.ranks, device)
        if device == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network, group)
    for module in network.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            module.__class__ = GroupedBatchNorm
            module.groups, module.process_group = grouping.groups, group
    return network


def interleave(views: list[torch.Tensor], groups: int) -> torch.Tensor:
    """Views of the same photos, each [N, …] -> [len(views) * N, …]: all views of the first group of photos,
    then of the second.

    A network with so many groups then sees in each what a device with these photos would see.
    """
    if groups == 1:
        return torch.cat(views)
    parts = [view.tensor_split(groups) for view in views]
    return torch.cat([part[number] for number in range(groups) for part in parts])


def separate(rows: torch.Tensor, views: int, groups: int) -> torch.Tensor:
    """Undo `interleave`: [views * N, …] -> [views, N, …]."""
    return rows.unflatten(0, (groups, views, -1)).transpose(0, 1).flatten(1, 2)
