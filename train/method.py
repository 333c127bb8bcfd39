"""The interface of a training method, and all it shares with the trainer.

The trainer calls, for each step, in this order:

    begin_step(progress)                   once, before the first forward pass
    forward(batch) -> loss, metrics        once, or `accumulate` times; in DistributedDataParallel
    before_update(progress)                gradients are complete, before the optimizer step
    after_update(progress)                 parameters are new

What must survive a restart is in `state_dict`. A file in `train/methods/` with a MethodOptions is a method.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from dali_bgaug.config import Options
from train.batch_norm import Grouping, plan_groups
from train.networks import precise

Batch = dict[str, torch.Tensor]
Metrics = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """The setting that a method is built for."""

    backbone: str
    """A name of `networks.FEATURES`."""
    photos: int
    """Photos of this rank in one forward pass."""
    views: tuple[str, ...] = ()
    """Names of a photo's views, as the loader gives them."""
    accumulate: int = 1
    """Forward passes a step."""
    classes: int = 0
    """Classes of the data set."""
    seed: int = 0
    """Seed of what all ranks draw alike."""
    device: str = "cpu"
    """Type of the device it will run on, `cpu` or `cuda`; it is built on the CPU and moved there."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    step: int
    """Steps done before this one."""
    steps: int
    """Steps of the whole run."""
    epoch: int
    """The epoch this step belongs to, from 0."""


class Method(nn.Module):
    """Owns its networks; turns a batch into a loss."""

    chance_loss: float | None = None
    """The loss of chance, if there is such a number: the run warns when its loss stays there."""

    network: nn.Module

    @property
    def backbone(self) -> nn.Module:
        """The network that is exported and evaluated: `network`, where a method has but one."""
        return self.network

    def networks(self) -> list[nn.Module]:
        """The large networks, for torch.compile."""
        return [self.backbone]

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """A rank's views by name -> the mean loss and scalar metrics, `feature_std` among them."""
        raise NotImplementedError

    def begin_step(self, progress: Progress) -> None:
        """Before the forward passes of a step."""

    def before_update(self, progress: Progress) -> None:
        """After the backward pass, before the optimizer."""

    def after_update(self, progress: Progress) -> None:
        """After the optimizer."""


class MethodOptions(Options):
    """Base of every method's options; `name` is a Literal that recipes choose it by."""

    pipeline: ClassVar[str]
    """The loader pipeline whose views the method takes."""
    synchronise: ClassVar[bool] = True
    """Whether ranks share batch-norm statistics where `bn_group` is larger than a rank's batch."""

    name: str
    bn_group: int | None = Field(default=None, ge=2)
    """Photos that share batch-norm statistics (`train.batch_norm`)."""

    def build(self, setting: Setting) -> Method:
        """The method with new weights, drawn from torch's generator."""
        raise NotImplementedError

    def grouping(self, setting: Setting) -> Grouping:
        """The batch-norm grouping of this rank; raises UserError where there is none."""
        return plan_groups(self.bn_group, setting.photos, self.synchronise, setting.accumulate)

    def check(self, batch_size: int, accumulate: int) -> None:
        """Refuse, with a ValueError, a batch size (photos a step) or accumulation the method cannot take."""


@torch.no_grad()
def feature_std(features: torch.Tensor) -> torch.Tensor:
    """Spread of L2-normalised features [N, D]: their standard deviation over the batch times sqrt(D).

    About 1 if they cover the sphere, 0 if all are the same (collapse). Source: Chen, He 2021 (SimSiam),
    section 4.1.
    """
    return F.normalize(features.float(), dim=1).std(dim=0).mean() * features.shape[1] ** 0.5


@torch.no_grad()
def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The share of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels).float().mean()


def classification(
    logits: torch.Tensor, labels: torch.Tensor, features: torch.Tensor
) -> tuple[torch.Tensor, Metrics]:
    """Cross-entropy of logits [N, K] and labels int64 [N]; `accuracy`, `feature_std` of features [N, D]."""
    logits = precise(logits)
    metrics = {"accuracy": accuracy(logits, labels), "feature_std": feature_std(features.detach())}
    return F.cross_entropy(logits, labels), metrics


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Exponential moving average: target = momentum * target + (1 - momentum) * online, of all parameters.

    Buffers (batch-norm statistics) stay the target's own.
    """
    own, new = list(target.parameters()), [parameter.detach() for parameter in online.parameters()]
    torch._foreach_lerp_(own, new, 1 - momentum)
