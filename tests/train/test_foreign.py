"""Weights of other projects: what is said of them, and the backbone taken out of them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from train import checkpoint
from train.evaluate.backbone import load_backbone, load_foreign
from train.evaluate.probe import recipe_of
from train.export import hash_weights
from train.foreign import find_state_dict, take_backbone
from train.import_weights import main as import_weights

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "moco_v2_small.yaml"  # a ResNet-18


class ThinResNet(ResNet):
    """A ResNet-18 in all its names, with 64 channels in every stage: a twentieth of the weights."""

    def __init__(self, weights: None = None, **options: Any) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], **options)

    def _make_layer(self, block: type[BasicBlock], planes: int, *rest: Any, **options: Any) -> nn.Sequential:
        return super()._make_layer(block, min(planes, 64), *rest, **options)


@pytest.fixture(scope="module", autouse=True)
def thin() -> Iterator[None]:
    """Nothing here looks at how many weights there are, and they are hashed and written often."""
    names = list(torchvision.models.resnet18().state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "resnet18", ThinResNet)
        assert list(torchvision.models.resnet18().state_dict()) == names
        yield


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


@pytest.mark.parametrize(
    ("prefix", "place"),
    [("", None), ("module.", "state_dict"), ("module.encoder_q.", "state_dict"), ("backbone.", "model")],
)
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


# ---------------------------------------------------------------- known sources


def _put(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def _layers(prefix: str, *names: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.zeros(2) for name in names}


def _moco(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Of `main_moco.py --mlp`: DistributedDataParallel, two encoders with a two-layer `fc`, the queue."""
    head = ("fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias")
    other = {name: value + 1 for name, value in resnet.items()}
    weights = _put("module.encoder_q.", resnet) | _layers("module.encoder_q.", *head)
    weights |= _put("module.encoder_k.", other) | _layers("module.encoder_k.", *head)
    weights |= _layers("module.", "queue", "queue_ptr")
    return {"epoch": 800, "arch": "resnet18", "state_dict": weights, "optimizer": {"state": {}}}


def _swav(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As published: the weights alone, of DistributedDataParallel."""
    head = ("projection_head.0.weight", "projection_head.1.running_mean", "projection_head.3.bias")
    return _put("module.", resnet) | _layers("module.", *head, "prototypes.weight")


def _swav_in_training(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    several = _layers("module.", "prototypes.prototypes0.weight", "prototypes.prototypes1.weight")
    return {"epoch": 3, "state_dict": _swav(resnet) | several}


def _byol(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    """DeepMind's, converted: no counters, and the classifier that was trained beside."""
    old = {name: value for name, value in resnet.items() if "num_batches" not in name}
    return old | _layers("fc.", "weight", "bias")


def _byol_of_both(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    """DeepMind's, converted with both networks, projection and predictor."""
    head = ("fc.0.weight", "fc.1.weight", "fc.1.running_mean", "fc.3.weight")
    target = {name: value + 1 for name, value in resnet.items()}
    weights = _put("encoder_q.", resnet) | _layers("encoder_q.", *head)
    weights |= _put("encoder_k.", target) | _layers("encoder_k.", *head)
    return weights | _layers("predict_q.", "0.weight", "1.running_var", "3.weight")


def _byol_pytorch(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    """lucidrains' module, which has its network twice."""
    whole = resnet | _layers("fc.", "weight", "bias")
    projector = _layers("projector.", "0.weight", "1.running_mean", "3.bias")
    weights = _put("net.", whole) | _put("online_encoder.net.", whole) | _put("online_encoder.", projector)
    target = {name: value + 1 for name, value in whole.items()}
    weights |= _put("target_encoder.net.", target) | _put("target_encoder.", projector)
    return weights | _layers("online_predictor.", "0.weight", "1.running_mean", "3.bias")


def _vissl(resnet: dict[str, torch.Tensor], place: str = "_feature_blocks.") -> dict[str, Any]:
    """Of the model zoo: trunk and heads apart, deep in what is saved."""
    model = {"trunk": _put(place, resnet), "heads": _layers("0.clf.0.", "weight", "bias")}
    base = {"model": model, "meta": {"trunk": {}, "heads": {}}}
    return {"phase_idx": 799, "iteration": 3, "classy_state_dict": {"base_model": base, "train": False}}


def _vissl_probe(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    return _vissl(resnet, "base_model._feature_blocks.")


def _timm(resnet: dict[str, torch.Tensor]) -> dict[str, Any]:
    return resnet | _layers("fc.", "weight", "bias")


FILES = [
    *(("moco", _moco), ("swav", _swav), ("swav", _swav_in_training)),
    *(("byol", _byol), ("byol", _byol_of_both), ("byol", _byol_pytorch)),
    *(("vissl", _vissl), ("vissl", _vissl_probe), ("timm", _timm)),
]


@pytest.fixture(scope="module")
def resnet(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A backbone without its classifier."""
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


@pytest.mark.parametrize(("source", "make"), FILES)
def test_files_of_other_projects(
    source: str, make: Callable[..., dict[str, Any]], resnet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(make(resnet), path := tmp_path / "theirs.pth")
    found = take_backbone(checkpoint.read(path), "resnet18", path, source=source)
    assert set(found) == set(resnet)
    assert all(torch.equal(value, resnet[name]) for name, value in found.items())
    loaded = load_foreign(path, source, "resnet18")
    assert torch.equal(loaded.network.layer4[1].conv2.weight, resnet["layer4.1.conv2.weight"])
    assert loaded.sha256 == hash_weights(found)
    assert loaded.config.data.normalise.std[0] == (0.228 if source == "swav" else 0.229)
    assert next(iter(loaded.config.data.views.values())).crop.size == 224


@pytest.mark.parametrize(("source", "make"), FILES)
def test_a_weight_that_belongs_to_nothing_is_refused(
    source: str, make: Callable[..., dict[str, Any]], resnet: dict[str, torch.Tensor]
) -> None:
    with_more = make(resnet | _layers("layer5.", "weight"))
    with pytest.raises(
        UserError, match=rf"1 of its weights are no part of a resnet18 of --from={source}: .*layer5.weight"
    ):
        take_backbone(with_more, "resnet18", Path("theirs.pth"), source=source)


@pytest.mark.parametrize(("source", "make"), {source: (source, make) for source, make in FILES}.values())
def test_a_weight_that_is_missing_or_of_another_shape_is_refused(
    source: str, make: Callable[..., dict[str, Any]], resnet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    less = dict(resnet)
    del less["layer3.0.bn1.weight"]
    less["layer2.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(make(less), path := tmp_path / "theirs.pth")
    with pytest.raises(UserError) as error:
        load_foreign(path, source, "resnet18")
    assert "missing: layer3.0.bn1.weight" in str(error.value)
    assert "layer2.0.conv1.weight [1, 2, 3, 3] instead of [64, 64, 3, 3]" in str(error.value)


def test_another_projects_file_says_whose_it_may_be(resnet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(_swav(resnet), path := tmp_path / "theirs.pth")
    with pytest.raises(
        UserError, match=r"--from=moco has a resnet18 under 'encoder_q.', names .*; try --from=swav$"
    ):
        load_foreign(path, "moco", "resnet18")
    with pytest.raises(UserError, match=r"projection_head.0.weight, .*prototypes.weight; try --from=swav$"):
        load_foreign(path, "timm", "resnet18")
    torch.save(_vissl(resnet), path)
    with pytest.raises(UserError, match=r"it holds 'phase_idx', .*; try --from=vissl$"):
        load_foreign(path, "swav", "resnet18")
    torch.save(_timm(resnet), path)
    with pytest.raises(UserError, match=r"give another file, or another --backbone"):
        load_foreign(path, "moco", "alexnet")
    with pytest.raises(UserError, match=r"theirs.pth as a resnet50 of --from=timm: these weights are not"):
        load_foreign(path, "timm", "resnet50")


@pytest.mark.parametrize(
    ("source", "recipe"),
    [
        *(("moco", "linear_moco_v2"), ("swav", "linear_swav"), ("byol", "linear_byol")),
        *(("vissl", "linear_swav"), ("timm", "linear_supervised")),
    ],
)
def test_the_recipe_of_a_source(
    source: str, recipe: str, resnet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    make = next(make for name, make in FILES if name == source)
    torch.save(make(resnet), path := tmp_path / "theirs.pth")
    loaded = load_foreign(path, source, "resnet18")
    assert recipe_of("linear", loaded.config.method.name).stem == recipe
    assert loaded.pretraining.source == source
    method = {"moco": "moco_v2", "swav": "swav", "byol": "byol"}.get(source)
    assert (loaded.pretraining.method, loaded.pretraining.background) == (method, None)
