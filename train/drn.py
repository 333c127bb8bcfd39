"""Dilated residual networks, family D (Yu, Koltun, Funkhouser 2017), the trunks of DeepUSPS.

A ResNet whose last stages dilate in place of striding: features at an eighth of the image's side. Names of
weights are those of the authors' files, but for their classifier `fc`. Features are means over all cells;
theirs were over 28 x 28, so that an image of 224 pixels has the same. `drn_d_22_narrow` is ours, for CPUs.
"""

import math

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

_SHORT, _LONG = (1, 1, 2, 2, 2, 2, 1, 1), (1, 1, 3, 4, 6, 3, 1, 1)
DRNS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "drn_d_22": (BasicBlock, _SHORT),
    "drn_d_22_narrow": (BasicBlock, _SHORT),
    "drn_d_38": (BasicBlock, _LONG),
    "drn_d_54": (Bottleneck, _LONG),
    "drn_d_105": (Bottleneck, (1, 1, 3, 4, 23, 3, 1, 1)),
}
"""By name: the block of layers 3 to 6, and how many convolutions or blocks layers 1 to 8 have."""
_CHANNELS = (16, 16, 32, 64, 128, 256, 512, 512, 512)
_NARROW = (8, 8, 16, 32, 64, 128, 128, 128, 128)
_STRIDES = (1, 1, 2, 2, 2, 1, 1, 1, 1)
_DILATIONS = (1, 1, 1, 1, 1, 2, 4, 2, 1)


def channels_of(name: str) -> tuple[int, ...]:
    """Channels of the layers 0 to 8; blocks of bottlenecks have four times as many."""
    return _NARROW if name.endswith("_narrow") else _CHANNELS


class DRN(nn.Module):
    """A DRN-D backbone: [N, 3, H, W] -> [N, features]."""

    def __init__(self, name: str) -> None:
        """name: of DRNS."""
        super().__init__()
        kind, counts = DRNS[name]
        widths, inputs = channels_of(name), 3
        for number, (channels, stride, dilation) in enumerate(zip(widths, _STRIDES, _DILATIONS, strict=True)):
            residual = 3 <= number <= 6
            outputs = channels * kind.expansion if residual else channels
            parts: list[nn.Module] = []
            for position in range(counts[number - 1] if number else 1):
                step = 1 if position else stride
                if residual:
                    parts.append(_block(kind, inputs, channels, step, dilation))
                else:
                    parts += _convolution(inputs, outputs, step, dilation, size=3 if number else 7)
                inputs = outputs
            self.add_module(f"layer{number}", nn.Sequential(*parts))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(
                    module.weight, std=math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
                )

    def dense(self, x: torch.Tensor) -> torch.Tensor:
        """Features of every cell: [N, 3, H, W] -> [N, features, H / 8, W / 8], sides rounded up."""
        for layer in self.children():
            x = layer(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, features]."""
        return self.dense(x).mean(dim=(2, 3))


def _convolution(inputs: int, outputs: int, stride: int, dilation: int, size: int) -> list[nn.Module]:
    padding = size // 2 * dilation
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block(
    kind: type[BasicBlock] | type[Bottleneck], inputs: int, channels: int, stride: int, dilation: int
) -> nn.Module:
    """torchvision's residual block with all its 3 x 3 convolutions dilated."""
    outputs, shortcut = channels * kind.expansion, None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    block = kind(inputs, channels, stride, shortcut)
    for module in block.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (dilation, dilation)
    return block
