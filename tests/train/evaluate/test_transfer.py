"""Linear probes on other data sets: recipes, and where their results lie."""

import json
import sys
from pathlib import Path

import pytest

from tools.offline.labelled import folder_set, write_labelled
from train.evaluate.__main__ import main
from train.evaluate.backbone import load_backbone
from train.evaluate.probe import RECIPES, TRANSFER, probe_config

VALUES = {
    # epochs, batch, rate at that batch and after nine tenths, decay; A.8 does not say the decay
    "cifar10": (100, 32, 0.01, 2.4e-4, 0.0),
    "cifar100": (100, 32, 0.01, 2.4e-4, 0.0),
    "places205": (28, 256, 1.0, 1e-3, 1e-4),
}


@pytest.mark.parametrize("name", VALUES)
def test_transfer_recipes(untrained: Path, name: str) -> None:
    recipe = RECIPES / f"linear_{name}.yaml"
    config = probe_config(load_backbone(untrained), untrained, Path("/data"), recipe, {})
    epochs, batch, rate, late, decay = VALUES[name]
    optim, options = config.optim, config.method
    assert (config.epochs, config.data.batch_size) == (epochs, batch)
    assert optim.lr_at(0, epochs * 10, 10, batch) == pytest.approx(rate)
    assert optim.lr_at(epochs * 9, epochs * 10, 10, batch) == pytest.approx(late, rel=0.05)
    assert (optim.kind, optim.momentum, optim.weight_decay) == ("sgd", 0.9, decay)
    assert (options.freeze, options.backbone_bn, options.classifier) == (True, "eval", "linear")
    assert config.data.views["image"].crop.size == 224  # whatever the backbone was trained on
    if name == "places205":
        steps = [optim.lr_at(epoch * 10, 280, 10, 256) for epoch in (6, 7, 14, 21)]
        assert steps == pytest.approx([1.0, 0.1, 0.01, 0.001])


def test_all_of_them_are_tested() -> None:
    assert [f"linear_{name}" for name in VALUES] == list(TRANSFER)


def test_a_transfer_probe_has_a_place_of_its_own_and_says_its_size(
    untrained: Path,
    coloured: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On photos that were packed without masks."""
    photos = coloured.parent / "photos"
    write_labelled(folder_set(photos), tmp_path / "packed", per_shard=20)
    places = ["--checkpoint", untrained, "--data", tmp_path / "packed", "--test", photos]
    own = [
        "--recipe",
        RECIPES / "linear_cifar10.yaml",
        "data.crop.size=48",
        "optim.lr=30",
        "optim.lr_batch=12",
    ]
    reading = ["data.batch_size=12", "data.device=cpu", "data.threads=1", "data.crop.scale=[0.5, 1.0]"]
    words = ["evaluate", "linear", *places, *own, "epochs=20", *reading]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    main()
    result = json.loads((untrained / "linear_cifar10.json").read_text())
    assert (result["protocol"], result["recipe"], result["bn"]) == ("linear", "linear_cifar10", "eval")
    assert (result["size"], result["resize"], result["photos"]) == (48, 55, 36)
    assert result["top1"] == 1.0
    assert (untrained / "linear_cifar10" / "checkpoints" / "latest.pt").exists()
    assert "size              48  pixels, the centre of 55" in capsys.readouterr().out
