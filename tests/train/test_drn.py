"""DRNs: their weights by number and name, and what they compute, written a second time."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.runs import read_recipe, write_recipe
from train.drn import DRN
from train.evaluate.backbone import load_backbone
from train.features import Runtime, evaluation_config
from train.foreign import take_backbone
from train.loop import train
from train.neighbours import knn
from train.networks import FEATURES, build_backbone

SPECS = {
    # layer 0, then: blocks (b basic, B bottleneck, c convolution), stride, dilation
    "drn_d_22": ["c1", "c1", "c2", "b2 2", "b2 2", "b2 1 2", "b2 1 4", "c1 2", "c1 1"],
    "drn_d_54": ["c1", "c1", "c2", "B3 2", "B4 2", "B6 1 2", "B3 1 4", "c1 2", "c1 1"],
}


@pytest.mark.parametrize(
    ("name", "count"),
    [("drn_d_22", 15_880_752), ("drn_d_105", 54_288_304)],  # the authors' files, without their classifier
)
def test_weights_are_as_many_as_the_authors(name: str, count: int) -> None:
    network = build_backbone(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert FEATURES[name] == 512


def test_every_layer_has_the_size_of_the_paper() -> None:
    """At 224 pixels: channels and cells a side of layers 0 to 8."""
    x, sizes = torch.zeros(1, 3, 224, 224), []
    with torch.no_grad(), torch.device("meta"):
        network = DRN("drn_d_105").eval()
        x = x.to("meta")
        for layer in network.children():
            x = layer(x)
            sizes.append((x.shape[1], x.shape[2]))
    assert sizes == [
        *((16, 224), (16, 224), (32, 112), (256, 56), (512, 28)),
        *((1024, 28), (2048, 28), (512, 28), (512, 28)),
    ]


def test_names_are_the_authors() -> None:
    names = set(DRN("drn_d_105").state_dict())
    for name in (
        *("layer0.0.weight", "layer0.1.running_var", "layer1.0.weight", "layer3.0.conv3.weight"),
        *("layer3.0.bn1.bias", "layer3.0.downsample.1.weight", "layer5.22.conv2.weight", "layer8.1.bias"),
    ):
        assert name in names
    assert "layer5.23.conv2.weight" not in names and "layer4.1.downsample.0.weight" not in names


@pytest.mark.parametrize("name", SPECS)
def test_features_are_those_of_the_formulas(name: str) -> None:
    torch.manual_seed(0)
    network = DRN(name).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 33, 40)
    with torch.no_grad():
        found, expected = network.dense(x), _forward(network.state_dict(), SPECS[name], x)
        assert found.shape == (2, 512, 5, 5)
        assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max())
        assert torch.allclose(network(x), expected.mean(dim=(2, 3)), atol=1e-4 * expected.abs().max())


def _forward(weights: dict[str, torch.Tensor], spec: list[str], x: torch.Tensor) -> torch.Tensor:
    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, scale, shift = (part[:, None, None] for part in parts)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def convolve(name: str, x: torch.Tensor, stride: int = 1, dilation: int = 1) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, None, stride, weight.shape[2] // 2 * dilation, dilation)

    for number, text in enumerate(spec):
        kind, (stride, dilation) = text.split()[0], ([*map(int, text.split()[1:]), 1, 1][:2])
        if kind[0] == "c":
            stride, dilation = int(kind[1]), stride
            name = f"layer{number}"
            x = norm(f"{name}.1", convolve(f"{name}.0", x, stride, dilation)).relu()
            continue
        for block in range(int(kind[1])):
            name, step = f"layer{number}.{block}", 1 if block else stride
            short = x
            if f"{name}.downsample.0.weight" in weights:
                short = norm(f"{name}.downsample.1", convolve(f"{name}.downsample.0", x, step))
            if kind[0] == "b":
                x = norm(f"{name}.bn1", convolve(f"{name}.conv1", x, step, dilation)).relu()
                x = norm(f"{name}.bn2", convolve(f"{name}.conv2", x, 1, dilation))
            else:
                x = norm(f"{name}.bn1", convolve(f"{name}.conv1", x)).relu()
                x = norm(f"{name}.bn2", convolve(f"{name}.conv2", x, step, dilation)).relu()
                x = norm(f"{name}.bn3", convolve(f"{name}.conv3", x))
            x = (x + short).relu()
    return x


@pytest.mark.parametrize("prefix", ["", "module.", "base", "module.base"])
def test_public_files_are_imported(prefix: str) -> None:
    """Of the classifier, with `fc`, and of the segmentation networks, whose layers are numbers; old files
    have no counters."""
    own = DRN("drn_d_22").state_dict()
    kept = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    if prefix.endswith("base"):
        theirs = {name.replace("layer", f"{prefix}.", 1): value for name, value in kept.items()}
    else:
        theirs = {prefix + name: value for name, value in kept.items()}
    theirs[f"{prefix}fc.weight"] = torch.zeros(1000, 512, 1, 1)
    found = take_backbone({"state_dict": theirs}, "drn_d_22", Path("drn.pth"))
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize("method", ["moco_v2", "byol", "swav"])
def test_methods_train_one_and_it_is_exported_and_evaluated(
    method: str, textured: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "out", ("backbone=drn_d_22_narrow", "epochs=1", "optim.warmup_epochs=0")
    config = read_recipe(write_recipe(tmp_path, textured, method), *words)
    train(config, out)
    loaded = load_backbone(out / "backbone.pt")
    assert loaded.config.backbone == "drn_d_22_narrow"
    assert loaded.network(torch.randn(2, 3, 48, 40)).shape == (2, 128)
    data = evaluation_config(config.data, textured, runtime=Runtime.of(config.data))
    found = knn(loaded.network, data, data, torch.device("cpu"))
    assert found["top1"] > 0.3  # a photo is among its own neighbours
