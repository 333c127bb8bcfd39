"""Supervised training with labels: the yardstick of the self-supervised methods (Goyal et al. 2017)."""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from train.batch_norm import group_batch_norm
from train.method import Batch, Method, MethodOptions, Metrics, Setting, accuracy, feature_std
from train.networks import FEATURES, build_backbone, precise


class SupervisedOptions(MethodOptions):
    """Supervised training has no parameters of its own."""

    pipeline: ClassVar[str] = "supervised"

    name: Literal["supervised"] = "supervised"

    def build(self, setting: Setting) -> "Supervised":
        """Backbone and a classifier of the data set's classes."""
        return Supervised(self, setting)


class Supervised(Method):
    """A backbone whose residual branches start at 0, and a linear classifier."""

    def __init__(self, options: SupervisedOptions, setting: Setting) -> None:
        super().__init__()
        self.network = build_backbone(setting.backbone, zero_init_residual=True)
        group_batch_norm(self.network, options.grouping(setting), setting.device)
        self.classifier = nn.Linear(FEATURES[setting.backbone], setting.classes)
        self.chance_loss = math.log(setting.classes)

    @property
    def backbone(self) -> nn.Module:
        """The only one."""
        return self.network

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `image` [N, 3, H, W] and `label` int64 [N]."""
        features = self.network(batch["image"])
        logits = precise(self.classifier(features))
        metrics = {
            "accuracy": accuracy(logits, batch["label"]),
            "feature_std": feature_std(features.detach()),
        }
        return F.cross_entropy(logits, batch["label"]), metrics
