"""Weights of other projects: what is said of them, and the backbone taken out of them."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from train.evaluate.backbone import load_backbone
from train.foreign import find_state_dict
from train.import_weights import main as import_weights

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "moco_v2_small.yaml"  # a ResNet-18


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).state_dict()


def _import(monkeypatch: pytest.MonkeyPatch, path: Path, *words: str) -> Path:
    out = path.with_name("backbone.pt")
    monkeypatch.setattr(
        sys, "argv", ["import_weights", str(path), f"--config={RECIPE}", f"--out={out}", *words]
    )
    import_weights()
    return out


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q.", "backbone."])
@pytest.mark.parametrize("place", [None, "state_dict", "model"])
def test_a_backbone_is_found_under_any_prefix(
    prefix: str,
    place: str | None,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = {prefix + name: value for name, value in weights.items()}
    named["module.queue"] = torch.zeros(3)
    torch.save({place: named, "epoch": 800} if place else named, tmp_path / "theirs.pth.tar")
    with pytest.raises(
        UserError, match=r"holds 123 weights of another project .*train.import_weights FILE --config"
    ):
        load_backbone(tmp_path / "theirs.pth.tar")
    loaded = load_backbone(_import(monkeypatch, tmp_path / "theirs.pth.tar"))
    assert torch.equal(loaded.network.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    card = read_json(tmp_path / "backbone.json", "")
    assert (card["architecture"], card["data"]["imported_from"]) == ("resnet18", "theirs.pth.tar")


def test_of_two_networks_one_is_named(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {f"q.{name}": value for name, value in weights.items()}
    both |= {f"k.{name}": value + 1 for name, value in weights.items()}
    torch.save(both, tmp_path / "theirs.pt")
    with pytest.raises(UserError, match=r"resnet18 are under 'k.' and 'q.'; give one with --prefix"):
        _import(monkeypatch, tmp_path / "theirs.pt")
    loaded = load_backbone(_import(monkeypatch, tmp_path / "theirs.pt", "--prefix=q."))
    assert torch.equal(loaded.network.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "the weights of a resnet18 are nowhere in it .names like"),
        ("shape", "the weights of a resnet18 are nowhere in it"),
        ("other", "it holds 'epoch', 'best'; give another file"),
    ],
)
def test_what_is_no_such_backbone_is_refused(
    change: str,
    message: str,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = dict(weights)
    if change == "missing":
        del content["layer3.0.bn1.weight"]
    elif change == "shape":
        content["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    else:
        content = {"epoch": 3, "best": 0.5}
    torch.save(content, tmp_path / "theirs.pt")
    with pytest.raises(UserError, match=message):
        _import(monkeypatch, tmp_path / "theirs.pt")
    assert not (tmp_path / "backbone.pt").exists()


def test_files_without_counters_have_those_of_a_new_network(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of before PyTorch counted batches."""
    old = {name: value for name, value in weights.items() if "num_batches" not in name}
    torch.save(old, tmp_path / "theirs.pt")
    assert load_backbone(_import(monkeypatch, tmp_path / "theirs.pt")).network.bn1.num_batches_tracked == 0


def test_only_tensors_by_name_are_weights() -> None:
    assert find_state_dict({}) is None
    assert find_state_dict({"a": 1}) is None
    assert find_state_dict({3: torch.zeros(1)}) is None
    assert list(find_state_dict({"state_dict": {"a": torch.zeros(1)}, "epoch": 1})) == ["a"]
