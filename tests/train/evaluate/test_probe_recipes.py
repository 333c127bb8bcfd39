"""Recipes of linear probes and fine-tuning, and the classifiers and batch norm that they ask for."""

from pathlib import Path

import pytest
import torch

from dali_bgaug.config import read_yaml
from dali_bgaug.errors import UserError
from tests.helpers.probes import LINEAR, Files
from train import batch_norm
from train.evaluate.classifier import load_classifier
from train.evaluate.probe import RECIPES, TRANSFER, recipe_of
from train.export import Backbone
from train.method import Setting
from train.methods.probe import ProbeOptions
from train.networks import AlexNet

LINEARS = {
    # epochs, batch, rate at that batch, milestones, factor, warm-up, decay, Nesterov, batch norm, its photos
    "moco_v2": (120, 2048, 240.0, (60, 80, 100), 0.1, 10, 0, False, "train", 64),
    "byol": (140, 1024, 0.8, (80, 100, 120), 0.1, 0, 0, True, "train", 64),
    "swav": (100, 2048, 2.4, (), 0.1, 5, 1e-6, False, "eval", None),
    "rotnet": (35, 256, 0.1, (5, 15, 25), 0.2, 0, 5e-4, True, "eval", 256),
    "supervised": (40, 4096, 0.16, (), 0.1, 0, 1e-4, False, "eval", None),
}
FINETUNES = {
    # epochs, milestones, factor, head, trunk, photos of a batch norm
    ("moco_v2", 1): (50, (30, 40), 0.1, 1.0, 1e-4, None),
    ("moco_v2", 10): (50, (30, 40), 0.1, 0.3, 1e-4, None),
    ("byol", 1): (50, (30, 40), 0.1, 1.0, 1e-3, None),
    ("byol", 10): (50, (30, 40), 0.1, 0.1, 1e-3, None),
    ("swav", 1): (20, (12, 16), 0.2, 5.0, 0.02, 256),
    ("swav", 10): (20, (12, 16), 0.2, 0.2, 0.01, 256),
}


@pytest.mark.parametrize("method", LINEARS)
def test_linear_recipes(job: Files, method: str) -> None:
    config = job._replace(recipe=recipe_of("linear", method), words=()).config()
    epochs, batch, rate, milestones, factor, warmup, decay, nesterov, mode, group = LINEARS[method]
    optim, options = config.optim, config.method
    assert (config.epochs, config.data.batch_size) == (epochs, batch)
    assert optim.lr_at(warmup * 10, epochs * 10, 10, batch) == pytest.approx(rate)
    assert (optim.milestones, optim.factor, optim.warmup_epochs) == (milestones, factor, warmup)
    assert (optim.weight_decay, optim.nesterov, optim.momentum) == (decay, nesterov, 0.9)
    assert (options.backbone_bn, options.bn_group, options.freeze) == (mode, group, True)
    kind = ("conv5", "normalised") if method == "rotnet" else ("last", "linear")
    assert (options.layer, options.classifier) == kind
    view = config.data.views["image"]
    assert (view.crop.scale, view.crop.flip_p, view.crop.size) == ((0.08, 1.0), 0.5, 32)
    assert (view.photometric.jitter_p, view.photometric.blur_p) == (0, 0)


@pytest.mark.parametrize(("method", "percent"), FINETUNES)
def test_fine_tuning_recipes(job: Files, method: str, percent: int) -> None:
    recipe = recipe_of("finetune", method, percent)
    config = job._replace(recipe=recipe, words=()).config()
    epochs, milestones, factor, head, trunk, group = FINETUNES[method, percent]
    optim = config.optim
    assert (config.epochs, config.data.batch_size, optim.milestones, optim.factor) == (
        epochs,
        256,
        milestones,
        factor,
    )
    assert (optim.lr, optim.backbone_lr, optim.weight_decay) == (head, trunk, 0)
    assert (config.method.freeze, config.method.bn_group) == (False, group)


@pytest.mark.parametrize(
    ("recipe", "plans"),
    [
        # ranks -> groups of a rank, or ranks that share one
        ("linear_moco_v2", {1: (32, 1), 8: (4, 1), 32: (1, 1), 64: (1, 2)}),  # 64 of 2048 photos
        ("linear_byol", {1: (16, 1), 8: (2, 1), 16: (1, 1), 32: (1, 2)}),  # 64 of 1024
        ("finetune_swav_1percent", {1: (1, 1), 2: (1, 2), 8: (1, 8)}),  # all 256
        ("finetune_swav_10percent", {1: (1, 1), 2: (1, 2), 8: (1, 8)}),
    ],
)
def test_batch_norm_of_a_recipe_does_not_depend_on_the_ranks(
    recipe: str, plans: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_yaml(RECIPES / f"{recipe}.yaml")
    options = ProbeOptions(checkpoint=Path("unread"), **values["method"])
    found = {}
    for ranks in plans:
        monkeypatch.setattr(batch_norm, "world_size", lambda ranks=ranks: ranks)
        found[ranks] = options.grouping(Setting("resnet50", photos=values["data"]["batch_size"] // ranks))
    assert found == plans


@pytest.mark.parametrize("freeze", [True, False])
def test_a_backbone_in_train_mode_is_normalised_by_groups(job: Files, freeze: bool) -> None:
    """Twelve photos in groups of four give the features of three batches of four."""
    options = {"checkpoint": job.checkpoint, "freeze": freeze, "backbone_bn": "train"}
    setting = Setting("resnet18", photos=12, classes=3)
    grouped, plain = (
        ProbeOptions(**options, bn_group=size).build(setting).train().network for size in (4, None)
    )
    x = torch.randn(12, 3, 32, 32) * torch.arange(1, 13).view(-1, 1, 1, 1)
    found = grouped(x)
    torch.testing.assert_close(found, torch.cat([plain(part) for part in x.split(4)]))
    assert (found - plain(x)).abs().max() > 0.01


def test_all_recipes_are_tested() -> None:
    names = (
        {f"linear_{name}" for name in LINEARS}
        | {*TRANSFER}
        | {f"finetune_{m}_{p}percent" for m, p in FINETUNES}
    )
    assert {path.stem for path in RECIPES.glob("*.yaml")} == names
    assert all("extends" not in read_yaml(path) for path in RECIPES.glob("*.yaml"))
    with pytest.raises(UserError, match=r"no recipe finetune_rotnet_1percent .*; choose one with --recipe"):
        recipe_of("finetune", "rotnet", 1)


def test_conv5_of_alexnet(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Backbone(AlexNet().state_dict(), {})
    monkeypatch.setattr("train.methods.probe.read_backbone", lambda path: stored)
    options = ProbeOptions(checkpoint=Path("alexnet"), layer="conv5")
    probe = options.build(Setting("alexnet", photos=2, classes=3))
    assert probe.classifier.in_features == 9216
    x, label = torch.randn(2, 3, 63, 63), torch.tensor([0, 1])
    with torch.no_grad():
        probe.eval()
        expected = probe.classifier(probe.network.pool(probe.network.features(x)).flatten(1))
        loss, _ = probe({"image": x, "label": label})
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(expected, label).item())


def test_rotnets_classifier_normalises_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 256 channels over the batch and its 36 cells, by what it is while training, by what it was
    afterwards; nothing else is learned than the linear layer, whose weights start as wide as RotNet's."""
    stored = Backbone(AlexNet().state_dict(), {})
    monkeypatch.setattr("train.methods.probe.read_backbone", lambda path: stored)
    options = {"checkpoint": Path("alexnet"), "layer": "conv5", "classifier": "normalised"}
    probe = ProbeOptions(**options, backbone_bn="eval").build(Setting("alexnet", photos=2, classes=8)).train()
    linear = probe.classifier
    assert [name for name, p in probe.named_parameters() if p.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    assert linear.weight.std().item() == pytest.approx(0.5, rel=0.02)  # sqrt(2 / 8)
    assert not linear.bias.any()
    x = 3 + 2 * torch.randn(8, 256, 36)
    normal = (x - x.mean((0, 2), keepdim=True)) / x.std((0, 2), correction=0, keepdim=True)
    expected = normal.flatten(1) @ linear.weight.T
    assert torch.allclose(linear(x.flatten(1)), expected, rtol=1e-3, atol=1e-3)
    assert linear.norm.running_mean.mean().item() == pytest.approx(0.3, abs=0.02)  # a tenth of the way to 3
    assert not probe.network.training


def test_a_normalised_classifier_is_tested_with_its_statistics(job: Files) -> None:
    words = [*LINEAR, "method.classifier=normalised", "method.backbone_bn=eval", "method.bn_group=12"]
    assert job._replace(words=words).run()["top1"] == 1.0
    linear = load_classifier(job.out).network.linear
    assert linear.norm.num_batches_tracked == 60
