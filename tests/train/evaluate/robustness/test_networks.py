"""Networks to be evaluated: classifiers of runs, torchvision's from files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from dali_bgaug.errors import UserError
from dali_bgaug.files import sha256
from tests.helpers.runs import read_recipe, write_recipe
from train import checkpoint
from train.evaluate.robustness.imagenet import WNIDS
from train.evaluate.robustness.networks import load_run_classifier, load_torchvision
from train.loop import Loop
from train.signals import StopRequest

SMALL = "shufflenet_v2_x0_5"


def _save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.get_model(SMALL, weights=None).eval()


@pytest.mark.parametrize(
    ("place", "prefix"), [(None, ""), ("state_dict", "module."), ("model", ""), ("state_dict", "")]
)
def test_torchvisions_networks_from_a_file(
    place: str | None, prefix: str, network: torch.nn.Module, tmp_path: Path
) -> None:
    named = {prefix + name: value for name, value in network.state_dict().items()}
    path = _save(tmp_path / "theirs.pth", {place: named, "epoch": 3} if place else named)
    loaded = load_torchvision(SMALL, path)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), network(x))
    assert loaded.classes == list(WNIDS)
    assert (loaded.size, loaded.normalise.std) == (224, (0.229, 0.224, 0.225))
    assert not loaded.network.training
    assert loaded.record["weights"] is None
    assert "IMAGENET1K_V1 cannot be told from a state dict" in loaded.record["note"]
    assert loaded.name == "torchvision shufflenet_v2_x0_5 theirs.pth"


def test_a_file_without_counters_is_complete(network: torch.nn.Module, tmp_path: Path) -> None:
    """As torchvision's own IMAGENET1K_V1."""
    old = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    assert load_torchvision(SMALL, _save(tmp_path / "old.pth", old)).network is not None


def test_torchvisions_own_files_are_known_by_their_hash(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(tmp_path / "renamed.pth", network.state_dict())
    real = sha256(path)
    monkeypatch.setattr("train.evaluate.robustness.networks.sha256", lambda _: "f707e7126e" + real[10:])
    loaded = load_torchvision(SMALL, path)
    assert loaded.name == "torchvision shufflenet_v2_x0_5 IMAGENET1K_V1"
    assert loaded.record["weights"] == "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    assert loaded.record["made_for"] == {
        **{"resize": 256, "crop": 224, "interpolation": "bilinear"},
        **{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }


@pytest.mark.parametrize(
    ("start", "weights", "resize"),
    [
        ("0676ba61", "ResNet50_Weights.IMAGENET1K_V1", 256),
        ("11ad3fa6", "ResNet50_Weights.IMAGENET1K_V2", 232),
    ],
)
def test_v1_and_v2_of_a_resnet_50_are_told_apart(
    start: str, weights: str, resize: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(tmp_path / "r50.pth", models.get_model("resnet50", weights=None).state_dict())
    monkeypatch.setattr("train.evaluate.robustness.networks.sha256", lambda _: start + "0" * 56)
    record = load_torchvision("resnet50", path).record
    assert (record["weights"], record["made_for"]["resize"]) == (weights, resize)
    assert record["file_sha256"].startswith(start)


def test_weights_that_are_not_the_networks_are_listed(network: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    del state["stage2.0.branch1.0.weight"]
    state["stage9.weight"] = torch.zeros(2)
    state["conv1.0.weight"] = torch.zeros(24, 3, 5, 5)
    path = _save(tmp_path / "other.pth", state)
    with pytest.raises(UserError) as error:
        load_torchvision(SMALL, path)
    assert "missing: stage2.0.branch1.0.weight" in str(error.value)
    assert "unknown: stage9.weight" in str(error.value)
    assert "conv1.0.weight [24, 3, 5, 5] instead of [24, 3, 3, 3]" in str(error.value)
    with pytest.raises(UserError, match=r"--weights=.*it holds 'epoch'; give another file"):
        load_torchvision(SMALL, _save(tmp_path / "none.pth", {"epoch": 3}))


def test_names_of_networks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--torchvision=resnet5O: .* did you mean resnet50 or "):
        load_torchvision("resnet5O", tmp_path / "unread.pth")
    with pytest.raises(UserError, match=r"--torchvision=zzz: .* there are alexnet, .*, wide_resnet50_2"):
        load_torchvision("zzz", tmp_path / "unread.pth")


def test_own_classes(tmp_path: Path) -> None:
    state = models.get_model(SMALL, weights=None, num_classes=3).state_dict()
    path, names = _save(tmp_path / "three.pth", state), tmp_path / "names.txt"
    with pytest.raises(UserError, match=r"three.pth: has 3 classes, not ImageNet's 1000; .* --classes=FILE"):
        load_torchvision(SMALL, path)
    with pytest.raises(UserError, match=r"--classes=.*names.txt: no such file"):
        load_torchvision(SMALL, path, names)
    names.write_text("cat\ndog\n\n")
    with pytest.raises(UserError, match=r"names 2 classes, .*three.pth has 3"):
        load_torchvision(SMALL, path, names)
    names.write_text("cat\ndog\ncat\n")
    with pytest.raises(UserError, match=r"named more than once: cat"):
        load_torchvision(SMALL, path, names)
    names.write_text("cat\ndog\nemu\n")
    loaded = load_torchvision(SMALL, path, names)
    assert loaded.classes == ["cat", "dog", "emu"]
    assert loaded.network(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_googlenet_turns_the_normalisation_into_its_own(auxiliary: bool, tmp_path: Path) -> None:
    theirs = models.get_model("googlenet", weights=None, aux_logits=auxiliary, init_weights=False)
    loaded = load_torchvision("googlenet", _save(tmp_path / "g.pth", theirs.state_dict()))
    assert loaded.network.transform_input
    with torch.no_grad():
        assert loaded.network(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_old_names_of_densenet_and_versions_of_mnasnet(tmp_path: Path) -> None:
    state = models.get_model("densenet121", weights=None).state_dict()
    old = {
        (
            name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")
            if ".denselayer" in name
            else name
        ): value
        for name, value in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    loaded = load_torchvision("densenet121", _save(tmp_path / "d.pth", old))
    assert torch.equal(loaded.network.classifier.weight, state["classifier.weight"])
    state = dict(models.get_model("mnasnet0_5", weights=None).state_dict())  # without its versions
    assert load_torchvision("mnasnet0_5", _save(tmp_path / "m.pth", state)).size == 224


# ---------------------------------------------------------------- runs


def test_a_supervised_run(tmp_path: Path, coloured: Path) -> None:
    recipe = write_recipe(tmp_path, coloured, "supervised", data={"background": {"kind": "rm"}})
    with Loop(read_recipe(recipe), tmp_path / "run", False, torch.device("cpu"), StopRequest()) as loop:
        loop.checkpointer.save(loop.trainer)
        size = loop.config.data.views["image"].crop.size
    loaded = load_run_classifier(tmp_path / "run")
    assert loaded.name == f"supervised_rm {tmp_path.name}/run"
    assert loaded.classes == ["blue", "green", "red"]
    assert loaded.size == size
    record = loaded.record
    assert (record["backbone"], record["training"], record["bn"]) == ("resnet18", "supervised", "train")
    assert (record["recipe"], record["init"], record["seed"]) == (None, None, 0)
    assert (record["pretraining"]["background"], record["pretraining"]["p_pos"]) == ("rm", 0.2)
    assert loaded.network(torch.randn(2, 3, size, size)).shape == (2, 3)
    path = tmp_path / "run" / "checkpoints" / "latest.pt"
    state = checkpoint.read(path)
    state["method"]["classifier.weight"] += 1
    checkpoint.save(tmp_path / "other.pt", state)
    assert load_run_classifier(tmp_path / "other.pt").sha256 != loaded.sha256


def test_a_run_without_labels_has_no_classifier(untrained: Path) -> None:
    with pytest.raises(UserError, match=r"trained by moco_v2 has no classifier"):
        load_run_classifier(untrained)
