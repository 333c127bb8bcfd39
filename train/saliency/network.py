"""The saliency network: a trunk, a 1 x 1 convolution to two classes, bilinear upsampling, softmax.

DeepUSPS upsamples by a fixed transposed convolution, which is the same but for the outermost four pixels,
where it fades. Trunks that stride further than 8 dilate instead.
"""

import warnings
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from dali_bgaug.errors import UserError
from train.networks import FEATURES, NarrowResNet, build_backbone

STRIDE = 8
"""Pixels of a cell of the trunk's features."""


class SaliencyNetwork(nn.Module):
    """Photos [N, 3, H, W], normalised -> probability of the object, [N, H, W]."""

    def __init__(self, trunk: str, head_std: float = 1.0) -> None:
        """trunk: of `networks.FEATURES`, but AlexNet. head_std: of the head's first weights."""
        super().__init__()
        self.trunk = build_backbone(trunk)
        if isinstance(self.trunk, torchvision.models.ResNet):
            _dilate(self.trunk.layer3, 1)
            _dilate(self.trunk.layer4, 2)
        self.head = nn.Conv2d(FEATURES[trunk], 2, 1)
        nn.init.normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first class is the object."""
        logits = self.head(self._cells(x))
        logits = F.interpolate(logits.float(), x.shape[2:], mode="bilinear", align_corners=False)
        return logits.softmax(1)[:, 0]

    def _cells(self, x: torch.Tensor) -> torch.Tensor:
        """Features of every cell, [N, features, H / STRIDE, W / STRIDE]."""
        trunk = self.trunk
        if isinstance(trunk, torchvision.models.ResNet):
            x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
            return trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(x))))
        if isinstance(trunk, NarrowResNet):
            return trunk.stages(trunk.stem(x))
        return trunk.dense(x)


def _dilate(stage: nn.Module, dilation: int) -> None:
    """Turn a stage's stride of 2 into dilation: its weights see what they saw, at four times as many places.

    dilation: of what comes before; behind the convolution that strode it is twice that.
    """
    for module in stage.modules():  # in the order of their use, but for 1 x 1 shortcuts
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding = module.dilation = (dilation, dilation)
            dilation *= module.stride[0]
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


class _Whole(nn.Module):
    """The network and what comes before it: photos float32 [N, 3, S, S], 0 to 255 -> [N, 1, S, S]."""

    def __init__(self, network: SaliencyNetwork, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        return self.network((photo - self.mean) / self.std)[:, None]


def require_onnx(path: Path) -> None:
    """Refuse a machine without the package onnx, which torch's exporter needs."""
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(f"{path}: to write it takes the package onnx: pip install '.[saliency]'") from None


def export_onnx(network: SaliencyNetwork, mean: list[float], std: list[float], side: int, path: Path) -> None:
    """Write the network as ONNX: `photo`, RGB of 0 to 255, float32 [N, 3, side, side] -> `saliency`."""
    whole = _Whole(network, mean, std).cpu().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other exporter needs one package more
        torch.onnx.export(
            whole,
            (torch.zeros(1, 3, side, side),),
            str(path),
            input_names=["photo"],
            output_names=["saliency"],
            dynamic_axes={"photo": {0: "photos"}, "saliency": {0: "photos"}},
            dynamo=False,
        )
