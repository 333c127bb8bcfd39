"""BYOL (Grill et al. 2020): an online network predicts what a slowly following target network makes of
another view.

Both networks run in train mode, the target on its own batch statistics. Loss, initial gamma and bias-free
last layers are those of the reference implementation.
"""

import copy
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from train.batch_norm import group_batch_norm
from train.method import Batch, Method, MethodOptions, Metrics, Progress, Setting, ema_update, feature_std
from train.networks import FEATURES, build_backbone, mlp, precise
from train.schedules import cosine_momentum


class ByolOptions(MethodOptions):
    """BYOL's own parameters."""

    pipeline: ClassVar[str] = "byol"

    name: Literal["byol"] = "byol"
    hidden: int = Field(default=4096, ge=1, le=2**16)
    """Hidden units of projector and predictor."""
    dim: int = Field(default=256, ge=1, le=2**16)
    """Size of a projection."""
    momentum: float = Field(default=0.99, ge=0, le=1)
    """Momentum of the target network at the first step; it rises to 1 along a cosine."""

    def build(self, setting: Setting) -> "Byol":
        """Online network, predictor, and a target equal to the online network."""
        return Byol(self, setting)


def regression_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared distance of L2-normalised vectors, 2 - 2 cosine: [N, D], [N, D] -> [N] in [0, 4], float32.

    One direction; BYOL's loss is the sum of both, averaged over the batch. Gradients reach whatever wants
    them.
    """
    prediction, target = (F.normalize(precise(x), dim=-1) for x in (prediction, target))
    return 2 - 2 * (prediction * target).sum(dim=-1)


class Byol(Method):
    """Online backbone, projector and predictor; target backbone and projector."""

    def __init__(self, options: ByolOptions, setting: Setting) -> None:
        super().__init__()
        self.options = options
        features, hidden, dim = FEATURES[setting.backbone], options.hidden, options.dim
        backbone = build_backbone(setting.backbone)
        projector = mlp(features, hidden, dim, bias=False)
        self.online = nn.ModuleDict({"backbone": backbone, "projector": projector})
        self.predictor = mlp(dim, hidden, dim, bias=False)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        grouping = options.grouping(setting)
        for network in (self.online, self.predictor, self.target):
            group_batch_norm(network, grouping, setting.device)

    @property
    def backbone(self) -> nn.Module:
        """The online network's."""
        return self.online["backbone"]

    def networks(self) -> list[nn.Module]:
        """Both backbones."""
        return [self.online["backbone"], self.target["backbone"]]

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `view_1`, `view_2` [N, 3, H, W]. The loss is in [0, 8]; a collapsed network's is 0."""
        views = batch["view_1"], batch["view_2"]
        with torch.no_grad():
            first, second = (_project(self.target, view) for view in views)
        projections = [_project(self.online, view) for view in views]
        from_first, from_second = (self.predictor(projection) for projection in projections)
        loss = (regression_loss(from_first, second) + regression_loss(from_second, first)).mean()
        return loss, {"feature_std": feature_std(projections[0].detach())}

    def after_update(self, progress: Progress) -> None:
        """The EMA update of the target."""
        momentum = cosine_momentum(progress.step, progress.steps, self.options.momentum)
        ema_update(self.target, self.online, momentum)


def _project(network: nn.ModuleDict, view: torch.Tensor) -> torch.Tensor:
    return network["projector"](network["backbone"](view))
