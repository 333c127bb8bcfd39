"""Backbones and heads."""

from typing import Literal

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from train.drn import DRN, DRNS, channels_of

BackboneName = Literal[
    "resnet10_narrow",
    "resnet18",
    "resnet50",
    "alexnet",
    "drn_d_22_narrow",
    "drn_d_22",
    "drn_d_38",
    "drn_d_54",
    "drn_d_105",
]
FEATURES: dict[str, int] = {
    **{"resnet10_narrow": 128, "resnet18": 512, "resnet50": 2048, "alexnet": 4096},
    **{name: channels_of(name)[-1] for name in DRNS},
}
"""Backbones, and the length of their features."""


def build_backbone(name: str, zero_init_residual: bool = False) -> nn.Module:
    """A backbone without classifier: [N, 3, H, W] -> [N, FEATURES[name]].

    ResNets 18 and 50 are torchvision's, with all their names but `fc`. zero_init_residual: the last batch
    norm of each of their residual branches starts at 0.
    """
    if name in DRNS:
        return DRN(name)
    if name == "alexnet":
        return AlexNet()
    if name == "resnet10_narrow":
        return NarrowResNet()
    network = getattr(torchvision.models, name)(weights=None, zero_init_residual=zero_init_residual)
    network.fc = nn.Identity()
    return network


def smallest_view(name: str) -> int:
    """The least side of a view, in pixels: AlexNet's last pooling needs 3 x 3 cells."""
    return 63 if name == "alexnet" else 1


def feature_length(name: str, layer: str = "last") -> int:
    """Numbers in a photo's features: of the last layer, or of AlexNet's fifth convolution (`conv5`)."""
    return 256 * 6 * 6 if layer == "conv5" else FEATURES[name]


def read_features(backbone: nn.Module, x: torch.Tensor, layer: str = "last") -> torch.Tensor:
    """[N, 3, H, W] -> [N, feature_length]."""
    return backbone.convolutions(x) if layer == "conv5" else backbone(x)


def build_classifier(backbone: str, layer: str, classes: int, normalised: bool = False) -> nn.Linear:
    """A linear classifier of `read_features`; normalised: a NormalisedLinear, by the features' channels."""
    features = feature_length(backbone, layer)
    if normalised:
        return NormalisedLinear(features, classes, channels=256 if layer == "conv5" else features)
    return nn.Linear(features, classes)


class NormalisedLinear(nn.Linear):
    """Batch norm without weights of its own, then a linear layer: [N, features] -> [N, outputs]."""

    def __init__(self, features: int, outputs: int, channels: int) -> None:
        """channels: of the features, which are channels x cells, cells last; each has its statistics."""
        super().__init__(features, outputs)
        self.norm = nn.BatchNorm1d(channels, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, features] -> [N, outputs]."""
        return super().forward(self.norm(x.unflatten(1, (self.norm.num_features, -1))).flatten(1))


class NarrowResNet(nn.Module):
    """A ResNet for views of 32 pixels on a CPU: one block a stage, 16 to 128 channels, no stride at first.

    As ResNets for CIFAR begin (He et al. 2016, section 4.2): 3 x 3, without pooling. A training step takes a
    quarter of a ResNet-18's time that sees as many cells.
    """

    def __init__(self, width: int = 16) -> None:
        """width: channels of the first stage; each of the next three has twice as many."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks, inputs = [], width
        for stage, outputs in enumerate((width, 2 * width, 4 * width, 8 * width)):
            stride = 2 if stage else 1
            shortcut = None
            if stage:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
            blocks.append(BasicBlock(inputs, outputs, stride, shortcut))
            inputs = outputs
        self.stages = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 8 width]."""
        return self.stages(self.stem(x)).mean(dim=(2, 3))


class AlexNet(nn.Module):
    """RotNet's AlexNet for ImageNet (Gidaris, Singh, Komodakis 2018): batch norm everywhere, no dropout.

    `features` are its five convolutions, [N, 256, 6, 6] of photos of 224 pixels; probes read them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 64, 11, stride=4, padding=2),
            nn.MaxPool2d(3, 2),
            *_convolution(64, 192, 5, padding=2),
            nn.MaxPool2d(3, 2),
            *_convolution(192, 384, 3, padding=1),
            *_convolution(384, 256, 3, padding=1),
            *_convolution(256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
        )
        self.pool = nn.AdaptiveAvgPool2d(6)  # changes nothing at 224 pixels
        self.fc = nn.Sequential(
            *(nn.Linear(256 * 6 * 6, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)),
            *(nn.Linear(4096, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)),
        )

    def convolutions(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 256 * 6 * 6], what the fifth convolution makes, pooled."""
        return self.pool(self.features(x)).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 4096]."""
        return self.fc(self.convolutions(x))


def _convolution(inputs: int, outputs: int, size: int, **options: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, **options), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def mlp(inputs: int, hidden: int, outputs: int, *, norm: bool = True, bias: bool = True) -> nn.Sequential:
    """Linear, batch norm (if `norm`), ReLU, Linear (with bias if `bias`): [N, inputs] -> [N, outputs]."""
    normalise = [nn.BatchNorm1d(hidden)] if norm else []
    return nn.Sequential(
        nn.Linear(inputs, hidden), *normalise, nn.ReLU(inplace=True), nn.Linear(hidden, outputs, bias=bias)
    )


def precise(x: torch.Tensor) -> torch.Tensor:
    """x in float32 at least: what autocast made bfloat16 is not good enough for a loss."""
    return x if x.dtype == torch.float64 else x.float()
