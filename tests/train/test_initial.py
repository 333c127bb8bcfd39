"""Runs that start from given weights: what is loaded, what is new, what is refused."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from tests.helpers.runs import METHODS, TinyNet, read_recipe, write_recipe
from train import checkpoint
from train.evaluate.backbone import initial_backbone
from train.export import export_backbone
from train.loop import Loop
from train.networks import FEATURES
from train.records import CheckpointRecord
from train.signals import StopRequest

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)


def _start(folder: Path, shards: Path, method: str, *words: str, out: str = "first") -> Loop:
    recipe = write_recipe(folder, shards, method)
    return Loop(read_recipe(recipe, *words), folder / out, False, CPU, StopRequest())


def _trained(folder: Path, shards: Path, method: str, *words: str) -> CheckpointRecord:
    """The checkpoint of a run, `first`, after a step: its state, its export beside it."""
    with _start(folder, shards, method, *words) as loop:
        loop.trainer.step(iter(loop.trainer.loader))
        loop.checkpointer.save(loop.trainer)
    record = checkpoint.load(folder / "first" / "checkpoints" / "latest.pt")
    export_backbone(record, folder / "backbone.pt")
    return record


@pytest.mark.parametrize("method", METHODS)
def test_all_networks_of_a_run_and_nothing_else(method: str, textured: Path, tmp_path: Path) -> None:
    trained = _trained(tmp_path, textured, method).method
    words = (f"init={tmp_path / 'first'}", "seed=1")
    with _start(tmp_path, textured, method, *words, out="second") as loop:
        for name, value in loop.trainer.method.named_children():
            for key, tensor in value.state_dict().items():
                assert torch.equal(tensor, trained[f"{name}.{key}"]), (name, key)
        if method == "moco_v2":
            assert not torch.equal(loop.trainer.method.queue, trained["queue"])
        assert (
            loop.trainer.steps_done,
            loop.trainer.loader.epoch,
            loop.trainer.optimizer.state_dict()["state"],
        ) == (0, 0, {})
        assert read_json(loop.out / "config.json", "")["init"] == str(tmp_path / "first")


@pytest.mark.parametrize("method", METHODS)
def test_an_exported_backbone_is_every_backbones(method: str, textured: Path, tmp_path: Path) -> None:
    """Also of an encoder that follows another; heads are drawn as ever."""
    _trained(tmp_path, textured, "supervised")
    exported = torch.load(tmp_path / "backbone.pt")
    with _start(tmp_path, textured, method, out="plain") as loop:
        plain = {
            name: value.clone() for name, value in loop.trainer.method.state_dict().items() if "." in name
        }
    with _start(tmp_path, textured, method, f"init={tmp_path / 'backbone.pt'}", out="second") as loop:
        backbones = set(loop.trainer.method.networks())
        assert len(backbones) == (2 if method in ("moco_v2", "byol") else 1)
        for network in backbones:
            assert all(torch.equal(v, exported[name]) for name, v in network.state_dict().items())
        heads = {
            n: v for n, v in loop.trainer.method.state_dict().items() if "." in n and "features" not in n
        }
        assert heads
        assert all(torch.equal(value, plain[name]) for name, value in heads.items())
        found = initial_backbone(loop.config).state_dict()
        assert all(torch.equal(value, exported[name]) for name, value in found.items())


def test_a_resumed_run_goes_on_from_its_checkpoint(textured: Path, tmp_path: Path) -> None:
    _trained(tmp_path, textured, "supervised")
    recipe, out = write_recipe(tmp_path, textured, "supervised"), tmp_path / "second"
    config = read_recipe(recipe, f"init={tmp_path / 'backbone.pt'}")
    with Loop(config, out, False, CPU, StopRequest()) as loop:
        loop.trainer.step(iter(loop.trainer.loader))
        loop.checkpointer.save(loop.trainer)
        weight = loop.trainer.method.classifier.weight.clone()
    (tmp_path / "backbone.pt").unlink()
    for again in (config, read_recipe(recipe), read_recipe(recipe, "init=elsewhere.pt")):
        with Loop(again, out, True, CPU, StopRequest()) as loop:
            assert loop.trainer.steps_done == 1
            assert torch.equal(loop.trainer.method.classifier.weight, weight)
            loop.checkpointer.save(loop.trainer)
        record = checkpoint.load(out / "checkpoints" / "latest.pt")
        for found in (read_json(out / "config.json", ""), json.loads(record.config)):
            assert found["init"] == str(tmp_path / "backbone.pt")  # what it did start from


@pytest.mark.parametrize(
    ("init", "words", "message"),
    [
        ("first", ("backbone=resnet10_narrow",), r"first: weights of backbone=resnet18, this run has"),
        ("backbone.pt", ("backbone=resnet10_narrow",), r"backbone.pt: weights of backbone=resnet18"),
        ("first", ("method.hidden=48",), r"first: .*\n.*projector.0.weight \[32, 32\] instead of \[48"),
        ("nothing", (), r"nothing: no such checkpoint"),
        ("byol.yaml", (), r"byol.yaml: cannot be read as a checkpoint"),
    ],
)
def test_what_does_not_fit_is_named(
    textured: Path, tmp_path: Path, init: str, words: tuple[str, ...], message: str
) -> None:
    _trained(tmp_path, textured, "byol")
    with pytest.raises(UserError, match=message):
        _start(tmp_path, textured, "byol", f"init={tmp_path / init}", *words, out="second")


def test_another_method_and_other_classes_are_refused(textured: Path, tmp_path: Path) -> None:
    state = dict(_trained(tmp_path, textured, "supervised"))
    init = f"init={tmp_path / 'first'}"
    with pytest.raises(UserError, match=r"first: a run of method.name=supervised, this is byol; give"):
        _start(tmp_path, textured, "byol", init, out="second")
    state["data"]["class_names"] = ["class0", "class1", "else"]
    torch.save(state, tmp_path / "first" / "checkpoints" / "step-00000001.pt")
    with pytest.raises(UserError, match=r"3 classes are not the 3 of data.shards=.*: class2, else\)"):
        _start(tmp_path, textured, "supervised", init, out="second")
    exported = f"init={tmp_path / 'backbone.pt'}"
    with _start(tmp_path, textured, "supervised", exported, out="second") as loop:
        assert isinstance(loop.trainer.method.classifier, nn.Linear)
