"""Runs that start from given weights: what is loaded, what is new, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from tests.train.runs import METHODS, TinyNet, read_recipe, write_recipe
from train import checkpoint
from train.evaluate.backbone import initial_backbone
from train.export import export_backbone
from train.loop import Run
from train.networks import FEATURES

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)


def _start(folder: Path, shards: Path, method: str, *words: str, out: str = "first") -> Run:
    recipe = write_recipe(folder, shards, method)
    return Run(read_recipe(recipe, *words), folder / out, False, CPU)


def _trained(folder: Path, shards: Path, method: str, *words: str) -> dict[str, Any]:
    """The checkpoint of a run, `first`, after a step: its state, its export beside it."""
    with _start(folder, shards, method, *words) as run:
        run.train_step(iter(run.loader))
        run.save()
    state = checkpoint.load(folder / "first" / "checkpoints" / "latest.pt")
    export_backbone(state, folder / "backbone.pt")
    return state


@pytest.mark.parametrize("method", METHODS)
def test_all_networks_of_a_run_and_nothing_else(method: str, textured: Path, tmp_path: Path) -> None:
    trained = _trained(tmp_path, textured, method)["method"]
    words = (f"init={tmp_path / 'first'}", "seed=1")
    with _start(tmp_path, textured, method, *words, out="second") as run:
        for name, value in run.method.named_children():
            for key, tensor in value.state_dict().items():
                assert torch.equal(tensor, trained[f"{name}.{key}"]), (name, key)
        if method == "moco_v2":
            assert not torch.equal(run.method.queue, trained["queue"])
        assert (run.step, run.loader.epoch, run.optimizer.state_dict()["state"]) == (0, 0, {})
        assert read_json(run.out / "config.json", "")["init"] == str(tmp_path / "first")


@pytest.mark.parametrize("method", METHODS)
def test_an_exported_backbone_is_every_backbones(method: str, textured: Path, tmp_path: Path) -> None:
    """Also of an encoder that follows another; heads are drawn as ever."""
    _trained(tmp_path, textured, "supervised")
    exported = torch.load(tmp_path / "backbone.pt")
    with _start(tmp_path, textured, method, out="plain") as run:
        plain = {name: value.clone() for name, value in run.method.state_dict().items() if "." in name}
    with _start(tmp_path, textured, method, f"init={tmp_path / 'backbone.pt'}", out="second") as run:
        backbones = set(run.method.networks())
        assert len(backbones) == (2 if method in ("moco_v2", "byol") else 1)
        for network in backbones:
            assert all(torch.equal(v, exported[name]) for name, v in network.state_dict().items())
        heads = {n: v for n, v in run.method.state_dict().items() if "." in n and "features" not in n}
        assert heads
        assert all(torch.equal(value, plain[name]) for name, value in heads.items())
        found = initial_backbone(run.config).state_dict()
        assert all(torch.equal(value, exported[name]) for name, value in found.items())


def test_a_resumed_run_goes_on_from_its_checkpoint(textured: Path, tmp_path: Path) -> None:
    _trained(tmp_path, textured, "supervised")
    recipe, out = write_recipe(tmp_path, textured, "supervised"), tmp_path / "second"
    config = read_recipe(recipe, f"init={tmp_path / 'backbone.pt'}")
    with Run(config, out, False, CPU) as run:
        run.train_step(iter(run.loader))
        run.save()
        weight = run.method.classifier.weight.clone()
    (tmp_path / "backbone.pt").unlink()
    for again in (config, read_recipe(recipe), read_recipe(recipe, "init=elsewhere.pt")):
        with Run(again, out, True, CPU) as run:
            assert run.step == 1
            assert torch.equal(run.method.classifier.weight, weight)
            run.save()
        state = checkpoint.load(out / "checkpoints" / "latest.pt")
        for found in (read_json(out / "config.json", ""), json.loads(state["config"])):
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
    state = _trained(tmp_path, textured, "supervised")
    init = f"init={tmp_path / 'first'}"
    with pytest.raises(UserError, match=r"first: a run of method.name=supervised, this is byol; give"):
        _start(tmp_path, textured, "byol", init, out="second")
    state["data"]["class_names"] = ["class0", "class1", "else"]
    torch.save(state, tmp_path / "first" / "checkpoints" / "step-00000001.pt")
    with pytest.raises(UserError, match=r"3 classes are not the 3 of data.shards=.*: class2, else\)"):
        _start(tmp_path, textured, "supervised", init, out="second")
    exported = f"init={tmp_path / 'backbone.pt'}"
    with _start(tmp_path, textured, "supervised", exported, out="second") as run:
        assert isinstance(run.method.classifier, nn.Linear)
