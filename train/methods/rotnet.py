"""RotNet (Gidaris, Singh, Komodakis 2018): by how many quarter turns has the photo been rotated?"""

import math
from typing import ClassVar, Literal

import torch
from torch import nn

from train.batch_norm import group_batch_norm
from train.method import Batch, Method, MethodOptions, Metrics, Setting, classification
from train.networks import FEATURES, build_backbone


class RotnetOptions(MethodOptions):
    """RotNet has no parameters of its own."""

    pipeline: ClassVar[str] = "rotnet"

    name: Literal["rotnet"] = "rotnet"

    def build(self, setting: Setting) -> "Rotnet":
        """Backbone and a classifier of four turns."""
        return Rotnet(self, setting)


class Rotnet(Method):
    """A backbone and a linear classifier of the four rotations of every photo."""

    chance_loss = math.log(4)

    def __init__(self, options: RotnetOptions, setting: Setting) -> None:
        super().__init__()
        self.network = build_backbone(setting.backbone)
        group_batch_norm(self.network, options.grouping(setting), setting.device)
        self.classifier = nn.Linear(FEATURES[setting.backbone], 4)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `image` [N, 4, 3, H, W], turned counter-clockwise by 0, 90, 180 and 270 degrees."""
        images = batch["image"]
        features = self.network(images.flatten(0, 1))
        labels = torch.arange(4, device=features.device).repeat(len(images))
        return classification(self.classifier(features), labels, features)
