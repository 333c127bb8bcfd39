"""Exports for timm, detectron2 and safetensors: names, values, cards, and what is refused."""

import json
import pickle
import pickletools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_bgaug.config import read_yaml, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import sha256
from train import checkpoint, safetensors
from train.config import RunConfig
from train.evaluate.backbone import load_backbone, load_foreign
from train.export import export_backbone, read_backbone
from train.export import main as export
from train.export_formats import detectron2_name
from train.import_weights import import_backbone
from train.networks import build_backbone
from train.records import CheckpointRecord

ROOT = Path(__file__).parents[2]


def _record(backbone: str) -> CheckpointRecord:
    torch.manual_seed(0)
    values = read_yaml(ROOT / "configs" / "moco_v2_small.yaml") | {"backbone": backbone}
    config = validate(RunConfig, values, "")
    weights = build_backbone(backbone).state_dict()
    return CheckpointRecord(
        version=2,
        **{"step": 5, "epochs": 0.5, "metrics": {"loss": 1.0}, "optimiser": {}, "ranks": [], "data": {}},
        identity=config.identity(),
        config=config.model_dump_json(),
        backbone="query_encoder.backbone",
        method={f"query_encoder.backbone.{name}": value for name, value in weights.items()}
        | {"query_encoder.head.weight": torch.zeros(2), "queue": torch.zeros(3)},
    )


@pytest.fixture(scope="module")
def record() -> CheckpointRecord:
    """Of a ResNet-18."""
    return _record("resnet18")


def _weights(record: CheckpointRecord) -> dict[str, torch.Tensor]:
    prefix = "query_encoder.backbone."
    return {key.removeprefix(prefix): value for key, value in record.method.items() if prefix in key}


def _card(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


# A ResNet-50's stem and first block, by hand from detectron2's modules: `BasicStem` has conv1 with its norm,
# `BottleneckBlock` conv1 to conv3 and shortcut, each with its norm; stages count from res2.
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCK = {
    "conv1": "stem.conv1",
    "bn1": "stem.conv1.norm",
    "layer1.0.conv1": "res2.0.conv1",
    "layer1.0.bn1": "res2.0.conv1.norm",
    "layer1.0.conv2": "res2.0.conv2",
    "layer1.0.bn2": "res2.0.conv2.norm",
    "layer1.0.conv3": "res2.0.conv3",
    "layer1.0.bn3": "res2.0.conv3.norm",
    "layer1.0.downsample.0": "res2.0.shortcut",
    "layer1.0.downsample.1": "res2.0.shortcut.norm",
}


def test_detectron2s_names_of_a_resnet50(tmp_path: Path) -> None:
    record = _record("resnet50")
    export_backbone(record, tmp_path / "r50.pkl", "detectron2")
    content = pickle.loads((tmp_path / "r50.pkl").read_bytes(), encoding="latin1")  # as detectron2 reads it
    assert set(content) == {"model", "__author__", "matching_heuristics"}
    assert content["matching_heuristics"] is True
    assert content["__author__"] == "dali_bgaug"
    model, weights = content["model"], _weights(record)
    first = {
        f"{theirs}.{part}": f"{own}.{part}"
        for own, theirs in BLOCK.items()
        for part in (NORM if "norm" in theirs else ("weight",))
    }
    assert {name for name in model if name.startswith(("stem.", "res2.0."))} == set(first)
    for theirs, own in first.items():
        assert np.array_equal(model[theirs], weights[own].numpy())
    assert np.array_equal(model["res5.2.conv3.norm.bias"], weights["layer4.2.bn3.bias"].numpy())
    assert np.array_equal(model["res4.0.shortcut.weight"], weights["layer3.0.downsample.0.weight"].numpy())
    assert len(model) == len(weights) == 318
    assert all(type(value) is np.ndarray and value.flags.writeable for value in model.values())
    assert {name.split(".")[0] for name in model} == {"stem", "res2", "res3", "res4", "res5"}


def test_detectron2s_pickle_names_nothing_that_numpy_moves(record: CheckpointRecord, tmp_path: Path) -> None:
    export_backbone(record, tmp_path / "r18.pkl", "detectron2")
    content = (tmp_path / "r18.pkl").read_bytes()
    strings = [value for code, value, _ in pickletools.genops(content) if code.name == "SHORT_BINUNICODE"]
    assert {name for name in strings if name.startswith(("numpy", "torch", "builtins"))} == {
        "numpy",
        "builtins",
    }
    assert "torch" not in content.decode("latin1")
    with pytest.raises(UserError, match=r"r18.pkl: written for detectron2; give the run"):
        read_backbone(tmp_path / "r18.pkl")


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ("layer2.3.bn3.running_var", "res3.3.conv3.norm.running_var"),
        ("layer4.0.downsample.1.num_batches_tracked", "res5.0.shortcut.norm.num_batches_tracked"),
        ("layer3.10.conv1.weight", "res4.10.conv1.weight"),
    ],
)
def test_detectron2s_names(own: str, theirs: str) -> None:
    assert detectron2_name(own) == theirs


@pytest.mark.parametrize(
    ("file_format", "name"), [("timm", "backbone_timm.pt"), ("safetensors", "model.safetensors")]
)
def test_timm_and_safetensors_come_back(
    file_format: str, name: str, record: CheckpointRecord, tmp_path: Path
) -> None:
    out, weights = tmp_path / name, _weights(record)
    export_backbone(record, out, file_format)
    found = checkpoint.read(out)
    assert sorted(found) == sorted(weights)
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    assert torch.equal(load_backbone(out).network.conv1.weight, weights["conv1.weight"])


def test_safetensors_of_another_project(record: CheckpointRecord, tmp_path: Path) -> None:
    """As timm publishes its weights: without a card."""
    out, weights = tmp_path / "model.safetensors", _weights(record)
    safetensors.write(out, weights | {"fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}, {})
    loaded = load_foreign(out, "timm", "resnet18")
    assert torch.equal(loaded.network.layer4[1].bn2.running_var, weights["layer4.1.bn2.running_var"])
    config = validate(RunConfig, read_yaml(ROOT / "configs" / "moco_v2_small.yaml"), "")
    import_backbone(out, config, tmp_path / "imported.pt")
    assert read_backbone(tmp_path / "imported.pt").sha256 == loaded.sha256


def test_safetensors_says_what_it_holds(record: CheckpointRecord, tmp_path: Path) -> None:
    export_backbone(record, tmp_path / "a.safetensors", "safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    said = header["__metadata__"]
    assert (said["format"], said["architecture"], said["method"]) == ("pt", "resnet18", "moco_v2")
    assert (said["step"], said["epochs"]) == ("5", "0.5")
    assert json.loads(said["input"])["channels"] == "RGB"
    assert header["conv1.weight"]["shape"] == [64, 3, 7, 7]


@pytest.mark.parametrize(
    ("file_format", "name", "said"),
    [
        ("torchvision", "backbone.pt", (None, None)),
        ("timm", "backbone_timm.pt", ("timm", "resnet18")),
        ("safetensors", "model.safetensors", ("safetensors", None)),
        ("detectron2", "backbone_detectron2.pkl", ("detectron2", None)),
    ],
)
def test_a_run_exports_each_beside_the_others(
    file_format: str,
    name: str,
    said: tuple[str | None, str | None],
    record: CheckpointRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint.write(tmp_path / "checkpoints", record)
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path), f"--format={file_format}"])
    export()
    card = _card(tmp_path / name)
    assert (card.get("file_format"), card.get("timm_model")) == said
    assert card["sha256"] == sha256(tmp_path / name)
    assert (card["format"], card["architecture"], card["step"]) == ("dali_bgaug backbone", "resnet18", 5)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints",
        name,
        Path(name).with_suffix(".json").name,
    }


def test_the_card_of_another_file_is_kept(record: CheckpointRecord, tmp_path: Path) -> None:
    export_backbone(record, tmp_path / "backbone.pt")
    with pytest.raises(UserError, match=r"backbone.json is the card of backbone.pt; give it another name"):
        export_backbone(record, tmp_path / "backbone.pkl", "detectron2")
    assert not (tmp_path / "backbone.pkl").exists()
    export_backbone(record, tmp_path / "backbone.pt")  # its own is replaced


@pytest.mark.parametrize("file_format", ["timm", "detectron2"])
@pytest.mark.parametrize("backbone", ["drn_d_22_narrow", "resnet10_narrow"])
def test_networks_that_a_library_does_not_have_are_refused(
    file_format: str, backbone: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"--format={file_format}: {file_format} has no {backbone}, only"):
        export_backbone(_record(backbone), tmp_path / "backbone.pkl", file_format)
    assert not list(tmp_path.iterdir())


def test_every_backbone_has_safetensors(tmp_path: Path) -> None:
    record = _record("drn_d_22_narrow")
    export_backbone(record, tmp_path / "drn.safetensors", "safetensors")
    network = load_backbone(tmp_path / "drn.safetensors").network
    assert torch.equal(network.state_dict()["layer0.0.weight"], _weights(record)["layer0.0.weight"])


@pytest.mark.parametrize(("file_format", "name"), [("detectron2", "a.pt"), ("safetensors", "a.pt")])
def test_names_of_files_that_readers_would_not_know(
    file_format: str, name: str, record: CheckpointRecord, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"--out=.*{name}: --format={file_format} is known by \.\w+; end"):
        export_backbone(record, tmp_path / name, file_format)
    assert not list(tmp_path.iterdir())
