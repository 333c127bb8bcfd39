"""RotNet's turns and its AlexNet; supervised training's classifier."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from train.method import Setting
from train.methods.rotnet import RotnetOptions
from train.methods.supervised import SupervisedOptions
from train.networks import AlexNet, build_backbone, smallest_view

REFERENCE = Path(__file__).parents[1] / "data" / "rotnet_rotations.npz"


def test_labels_are_the_originals_turns() -> None:
    """A network that tells the recorded rotations apart has a loss of 0 on the batch the loader makes of the
    image."""
    reference = np.load(REFERENCE)
    turns = [torch.from_numpy(reference[f"rot{angle}"].copy()).float() for angle in (0, 90, 180, 270)]
    image = torch.from_numpy(reference["img"].copy()).float().movedim(-1, 0)
    # The loader's square views are turned with rot90 counter-clockwise (tests/pipelines/test_methods.py).
    square = torch.nn.functional.pad(image, (0, 0, 0, 1))
    batch = torch.stack([square.rot90(number, (1, 2)) for number in range(4)])[None]
    for number, turn in enumerate(turns):
        assert torch.equal(image.rot90(number, (1, 2)).movedim(0, -1), turn)
    method = RotnetOptions().build(Setting("resnet18", 1))

    class Recognise(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            same = (x[:, None] == batch[0][None]).flatten(2).all(dim=2)
            return torch.nn.functional.pad(same.float() * 100, (0, 508))

    method.network = Recognise()
    with torch.no_grad():
        method.classifier.weight.zero_()[:, :4] = torch.eye(4)
        method.classifier.bias.zero_()
    loss, metrics = method({"image": batch.repeat(3, 1, 1, 1, 1)})
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert metrics["accuracy"] == 1


def test_alexnet_is_rotnets() -> None:
    network = AlexNet()
    convolutions = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 192, 384, 256, 256]
    linear = [layer for layer in network.fc if isinstance(layer, torch.nn.Linear)]
    assert [(layer.out_features, layer.bias) for layer in linear] == [(4096, None), (4096, None)]
    assert network.features(torch.zeros(1, 3, 224, 224)).shape == (1, 256, 6, 6)
    assert network.eval()(torch.zeros(2, 3, 63, 63)).shape == (2, 4096)
    assert smallest_view("alexnet") == 63
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, 3, 62, 62))


def test_supervised_starts_at_chance_with_quiet_branches() -> None:
    method = SupervisedOptions().build(Setting("resnet18", 4, classes=5))
    assert method.backbone.layer1[0].bn2.weight.abs().max() == 0
    assert method.backbone.bn1.weight.min() == 1
    assert method.chance_loss == pytest.approx(math.log(5))
    with torch.no_grad():
        method.classifier.weight.zero_()
        method.classifier.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0]))
    images = torch.randn(4, 3, 32, 32)
    loss, metrics = method({"image": images, "label": torch.tensor([0, 0, 1, 2])})
    assert metrics["accuracy"] == 0.5
    assert loss.item() == pytest.approx(4.5 + math.log1p(4 * math.exp(-9)), abs=1e-4)


def test_resnets_have_torchvisions_names() -> None:
    network = build_backbone("resnet18")
    assert "layer4.1.bn2.running_var" in network.state_dict()
    assert not any(name.startswith("fc") for name in network.state_dict())
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 512)
