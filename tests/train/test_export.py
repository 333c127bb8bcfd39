"""Exported backbones load elsewhere, and only where they fit."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, sha256, write_json
from dali_bgaug.shards import manifest_digest
from tests.helpers.runs import METHODS, read_recipe, write_recipe
from train import checkpoint
from train.evaluate.backbone import initial_backbone, load_backbone
from train.export import backbone_weights, export_backbone, read_checkpoint
from train.export import main as export
from train.loop import Loop, train
from train.networks import AlexNet
from train.signals import StopRequest
from train.trainer import Trainer


@pytest.fixture(scope="module")
def finished(textured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MoCo-v2 with a ResNet-18, three steps."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder, textured, epochs=1)
    train(read_recipe(recipe, "data.batch_size=16"), folder / "run")
    return folder / "run"


def test_a_finished_run_leaves_a_backbone_for_torchvision(finished: Path, textured: Path) -> None:
    weights = torch.load(finished / "backbone.pt", weights_only=True)
    network = torchvision.models.resnet18()
    missing = network.load_state_dict(weights, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    network.fc = nn.Identity()
    network.load_state_dict(weights)
    record = checkpoint.load(finished / "checkpoints" / "latest.pt")
    assert torch.equal(network.conv1.weight, record.method["query_encoder.backbone.conv1.weight"])

    card = json.loads((finished / "backbone.json").read_text())
    assert (card["architecture"], card["features"], card["method"]) == ("resnet18", 512, "moco_v2")
    assert (card["step"], card["epochs"]) == (3, 1.0)
    assert card["package_version"] == "0.1.0"
    assert card["sha256"] == hashlib.sha256((finished / "backbone.pt").read_bytes()).hexdigest()
    assert card["data"] == {
        **{"photos": 50, "classes": 3, "class_names": ["class0", "class1", "class2"]},
        "manifest_sha256": manifest_digest(textured),
    }
    assert {"loss", "lr", "accuracy", "feature_std"} <= set(card["metrics"])
    assert card["config"]["method"]["queue"] == 32


def test_export_from_the_command_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights.pt"
    monkeypatch.setattr(
        sys, "argv", ["export", str(finished / "checkpoints" / "latest.pt"), "--out", str(out)]
    )
    export()
    assert str(out) in capsys.readouterr().out
    first, second = (torch.load(path) for path in (finished / "backbone.pt", out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for words, message in (
        ([str(tmp_path)], "has no checkpoint"),
        ([str(tmp_path / "nothing.pt")], "no such checkpoint"),
        ([str(finished), "--out", str(tmp_path / "b.json")], "give the weights another"),
    ):
        monkeypatch.setattr(sys, "argv", ["export", *words])
        with pytest.raises(UserError, match=message):
            export()


def test_alexnet_is_exported_too(textured: Path, tmp_path: Path) -> None:
    words = ("backbone=alexnet", "data.crop.size=63")
    config = read_recipe(write_recipe(tmp_path, textured, "rotnet"), *words)
    with Loop(config, tmp_path / "run", False, torch.device("cpu"), StopRequest()) as loop:
        weights = backbone_weights(loop.checkpointer.record(loop.trainer))
        AlexNet().load_state_dict(weights)
        assert torch.equal(weights["features.0.weight"], loop.trainer.method.network.features[0].weight)


def test_weights_that_do_not_fit_are_listed(finished: Path, tmp_path: Path) -> None:
    weights = torch.load(finished / "backbone.pt")
    weights["layer9.weight"] = weights.pop("conv1.weight")
    card = read_json(finished / "backbone.json", "")
    for name in ("backbone", "narrow"):
        torch.save(weights, tmp_path / f"{name}.pt")
        card["sha256"] = sha256(tmp_path / f"{name}.pt")
        write_json(tmp_path / f"{name}.json", card)
        weights["conv1.weight"] = weights["layer9.weight"][:, :1]
    with pytest.raises(
        UserError, match=r"(?s)backbone.pt as a resnet18.*missing: conv1.weight.*: layer9.weight$"
    ):
        load_backbone(tmp_path / "backbone.pt")
    shape = r"of another shape: conv1.weight \[64, 1, 7, 7\] instead of \[64, 3, 7, 7\]"
    with pytest.raises(UserError, match=shape):
        load_backbone(tmp_path / "narrow.pt")


def test_damaged_weights_are_named(finished: Path, tmp_path: Path) -> None:
    """A flipped bit of a weight is another weight, which torch loads without a word."""
    for name in ("backbone.pt", "backbone.json"):
        shutil.copy(finished / name, tmp_path / name)
    load_backbone(tmp_path / "backbone.pt")
    data = bytearray((tmp_path / "backbone.pt").read_bytes())
    data[len(data) // 2] ^= 64
    (tmp_path / "backbone.pt").write_bytes(data)
    torch.load(tmp_path / "backbone.pt")
    with pytest.raises(UserError, match=r"backbone.pt: its checksum is not the one in backbone.json"):
        load_backbone(tmp_path / "backbone.pt")


def test_run_checkpoint_and_export_are_one_backbone(finished: Path) -> None:
    backbones = [
        load_backbone(path)
        for path in (finished, finished / "checkpoints" / "latest.pt", finished / "backbone.pt")
    ]
    assert len({backbone.sha256 for backbone in backbones}) == 1
    stored = backbone_weights(checkpoint.load(finished / "checkpoints" / "latest.pt"))
    for network, *_ in backbones:
        assert not network.training
        assert all(torch.equal(network.state_dict()[name], value) for name, value in stored.items())


@pytest.mark.parametrize("method", METHODS)
def test_untrained_is_what_the_run_started_from(method: str, textured: Path, tmp_path: Path) -> None:
    config = read_recipe(write_recipe(tmp_path, textured, method))
    with Trainer(config, torch.device("cpu")) as trainer:
        start = trainer.method.backbone.state_dict()
    fresh = initial_backbone(config).state_dict()
    assert start.keys() == fresh.keys()
    assert all(torch.equal(value, fresh[name]) for name, value in start.items())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("config", "no json", "its config names no backbone that there is"),
        ("config", '{"backbone": [1]}', "its config names no backbone that there is"),
        ("metrics", None, "neither a checkpoint of a run"),
        ("method", [1], "neither a checkpoint of a run"),
        ("backbone", "nowhere", "the checkpoint of step 3: these weights are not the network's"),
    ],
)
def test_odd_checkpoints_are_refused(
    finished: Path, tmp_path: Path, field: str, value: object, message: str
) -> None:
    state = torch.load(finished / "checkpoints" / "latest.pt")
    torch.save(state | {field: value}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=message):
        export_backbone(read_checkpoint(tmp_path / "odd.pt"), tmp_path / "backbone.pt")
    assert not (tmp_path / "backbone.pt").exists()


@pytest.mark.parametrize(
    "change", [{"config": None}, {"config": {"backbone": [1]}}, {"config": {"backbone": "vgg"}}]
)
def test_an_odd_card_is_refused(finished: Path, tmp_path: Path, change: dict[str, object]) -> None:
    shutil.copy(finished / "backbone.pt", tmp_path)
    write_json(tmp_path / "backbone.json", read_json(finished / "backbone.json", "") | change)
    with pytest.raises(UserError, match=r"backbone.json: not the card of an exported backbone"):
        load_backbone(tmp_path / "backbone.pt")


def test_a_damaged_card_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "backbone.pt", tmp_path)
    text = (finished / "backbone.json").read_text()
    (tmp_path / "backbone.json").write_text(text.replace('"step": 3', '"step": 5'))
    with pytest.raises(UserError, match=r"backbone.json: damaged or edited, its digest"):
        load_backbone(tmp_path / "backbone.pt")
