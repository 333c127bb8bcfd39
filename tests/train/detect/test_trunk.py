"""The trunk of a detector is a backbone of ours, whole."""

from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, sha256, write_json
from tests.helpers.detect import write_backbone
from train import checkpoint
from train.detect.trunk import load_trunk


def test_its_weights_and_what_it_was_trained_with(tmp_path: Path) -> None:
    weights = write_backbone(tmp_path / "b.pt")
    trunk = load_trunk("resnet18", tmp_path / "b.pt")
    state = trunk.network.state_dict()
    assert set(state) == set(weights)
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert (trunk.mean, trunk.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    assert len(trunk.sha256) == 64


def test_random_weights() -> None:
    trunk = load_trunk("resnet18", None)
    assert trunk.sha256 == "random"
    assert trunk.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("change", "message"), [("drop", "missing: conv1.weight"), ("add", "unknown: fc.bias")]
)
def test_other_names_are_refused(tmp_path: Path, change: str, message: str) -> None:
    """Training goes on from random weights else, and nobody notices but by the figures."""
    path = tmp_path / "b.pt"
    weights = write_backbone(path)
    if change == "drop":
        del weights["conv1.weight"]
    else:
        weights["fc.bias"] = torch.zeros(3)
    checkpoint.save(path, weights)
    card = read_json(path.with_suffix(".json"), "")
    write_json(path.with_suffix(".json"), card | {"sha256": sha256(path)})
    with pytest.raises(UserError, match=f"(?s)init={path}: these weights are not the network's.*{message}"):
        load_trunk("resnet18", path)


def test_another_backbone(tmp_path: Path) -> None:
    write_backbone(tmp_path / "b.pt", "resnet10_narrow")
    with pytest.raises(UserError, match="weights of backbone=resnet10_narrow; take backbone=resnet10_narrow"):
        load_trunk("resnet18", tmp_path / "b.pt")
