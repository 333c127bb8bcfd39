"""Supervised training with labels: the baseline of the self-supervised methods (Goyal et al. 2017)."""

import math
from typing import ClassVar, Literal

import torch
from torch import nn

from train.batch_norm import group_batch_norm
from train.method import Batch, Method, MethodOptions, Metrics, Setting, classification
from train.networks import FEATURES, build_backbone


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

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `image` [N, 3, H, W] and `label` int64 [N]."""
        features = self.network(batch["image"])
        return classification(self.classifier(features), batch["label"], features)
