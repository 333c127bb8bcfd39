"""Records of runs: old files are read, and nothing that is not as it should be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_json
from tests.helpers.runs import TinyNet, read_recipe, write_recipe
from train import checkpoint
from train.config import RunConfig
from train.evaluate.backbone import load_backbone
from train.export import read_backbone, read_card
from train.loop import train
from train.monitor import JsonLog, read_lines
from train.networks import FEATURES
from train.records import LogLine


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)


@pytest.fixture
def finished(textured: Path, tmp_path: Path) -> Path:
    """A run of one epoch."""
    train(read_recipe(write_recipe(tmp_path, textured, epochs=1)), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, r"not a checkpoint of version 2 \(version: "),
        ({"step": 6.5}, r"not a checkpoint of version 2 \(step: "),
        ({"ranks": [{"loader": {}, "rng": 3, "cuda_rng": None}]}, r"version 2 \(ranks\.0\.rng: "),
        ({"data": {"photos": "50"}}, r"version 2 \(data\.photos: "),
        ({"optimizer": {}}, r"version 2 \(optimizer: Extra inputs"),
    ],
)
def test_a_checkpoint_that_is_none(finished: Path, change: dict[str, Any], message: str) -> None:
    path = finished / "checkpoints" / "step-00000006.pt"
    torch.save(torch.load(path) | change, path)
    with pytest.raises(UserError, match=message):
        checkpoint.load(path)


def test_the_fields_of_a_checkpoint(finished: Path) -> None:
    """What version 2 is, of files that were written at any time."""
    state = torch.load(finished / "checkpoints" / "latest.pt")
    assert list(state) == [
        *("version", "step", "epochs", "identity", "config", "data", "metrics", "backbone", "method"),
        *("optimiser", "ranks"),
    ]
    assert [(type(rank), list(rank)) for rank in state["ranks"]] == [(dict, ["loader", "rng", "cuda_rng"])]
    assert (state["version"], state["step"], state["epochs"]) == (2, 6, 1.0)
    for name in ("class_names", "manifest_sha256"):
        del state["data"][name]  # older ones have none
    torch.save(state, finished / "checkpoints" / "latest.pt")
    assert checkpoint.load(finished / "checkpoints" / "latest.pt").data == {"photos": 50, "classes": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"not the card of an exported backbone \(version: "),
        ({"epochs": "1"}, r"\(epochs"),
        ({"architecture": "vgg"}, r"\(architecture: "),
    ],
)
def test_a_card_that_is_none(finished: Path, change: dict[str, Any], message: str) -> None:
    path = finished / "backbone.json"
    write_json(path, read_json(path, "") | change)
    with pytest.raises(UserError, match=message):
        read_card(path)


def test_a_card_of_a_run_with_keys_that_are_gone(finished: Path, tmp_path: Path) -> None:
    """They are left out; what there still is, is read."""
    shutil.copy(finished / "backbone.pt", tmp_path)
    card = read_json(finished / "backbone.json", "")
    config = json.loads(json.dumps(card["config"]))
    config["data"] |= {"compiled": True}
    config["method"] |= {"gone": 3}
    config |= {"also_gone": {"a": 1}}
    write_json(tmp_path / "backbone.json", card | {"config": config})
    assert read_backbone(tmp_path / "backbone.pt").config["data"]["compiled"] is True
    backbone = load_backbone(tmp_path / "backbone.pt")
    assert backbone.config == RunConfig.stored(card["config"], "")
    assert backbone.config.data.views["query"].crop.size == 32
    config["epochs"] = "many"
    write_json(tmp_path / "backbone.json", card | {"config": config})
    with pytest.raises(UserError, match=r"backbone.pt: config:\n  epochs='many'"):
        load_backbone(tmp_path / "backbone.pt")


def test_lines_of_a_log(tmp_path: Path) -> None:
    """Those of steps have the method's metrics, those of k-NN have none; others are damaged."""
    path = tmp_path / "log.jsonl"
    lines = [
        '{"step": 1, "epoch": 0, "loss": 2.0, "lr": 0.1, "accuracy": 0.5, "images_per_s": 9.0}',
        '{"step": 1, "loss": "2.0"}',
        '{"step": 2',
        '{"step": 2, "accuracy": "high"}',
        '{"step": 2, "knn_accuracy": 0.25, "knn_epoch": 1}',
        '{"step": 2, "ranks": {"data_wait": [0.5], "step_s": [1], "probe_ms": [0.1]}}',
        '{"step": 2, "ranks": {"data_wait": 0.5, "step_s": [1], "probe_ms": [0.1]}}',
    ]
    path.write_text("\n".join([*lines, ""]))
    found, damaged = read_lines(path)
    assert damaged == [2, 3, 4, 7]
    assert [line.values() for line in found] == [json.loads(lines[n]) for n in (0, 4, 5)]
    JsonLog(path, 2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [line.values() for line in found]
    with pytest.raises(ValueError, match="accuracy"):
        LogLine(step=1, accuracy="high")
