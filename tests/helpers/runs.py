"""Small runs for tests, in this process or in real ones."""

from pathlib import Path
from typing import Any

import torch
import torchvision
import yaml
from torch import nn

from dali_bgaug.config import merge, override, read_yaml, validate
from dali_bgaug.errors import run_program
from dali_bgaug.files import read_log
from train.config import RunConfig
from train.loop import train
from train.networks import FEATURES

ROOT = Path(__file__).parents[2]
METHODS = ("moco_v2", "byol", "swav", "rotnet", "supervised")
_SMALL: dict[str, dict[str, Any]] = {
    "moco_v2": {"queue": 32, "dim": 16, "bn_group": 4},
    "byol": {"hidden": 32, "dim": 16, "bn_group": 8, "momentum": 0.9},
    "swav": {
        **{"hidden": 32, "dim": 16, "prototypes": 12, "bn_group": 8},
        **{"queue": 16, "queue_from_epoch": 0, "freeze_prototypes_steps": 3},
    },
    "rotnet": {"bn_group": 8},
    "supervised": {"bn_group": 8},
}
_OPTIMISER = {"byol": "lars", "swav": "larc"}


class TinyNet(nn.Module):
    """Stands in for ResNet-18 in real processes, whose checkpoints are then small and steps short."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, 4, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
            *(nn.Conv2d(16, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 32]."""
        return self.features(x)


def use_tiny_net() -> None:
    """In this process `resnet18` is the TinyNet."""
    torchvision.models.resnet18 = TinyNet
    FEATURES["resnet18"] = 32


def write_recipe(folder: Path, shards: Path, name: str = "moco_v2", **values: Any) -> Path:
    """A run of 48 steps, eight epochs, on 50 small photos: a second or two on a CPU."""
    recipe = {
        "extends": str(ROOT / "configs" / f"{name}_demo.yaml"),
        "method": _SMALL[name],
        "data": {"shards": str(shards), "batch_size": 8, "device": "cpu", "threads": 1},
        "optim": {"kind": _OPTIMISER.get(name, "sgd"), "lr": 0.05, "lr_batch": 8, "warmup_epochs": 0},
        "epochs": 8,
        "checkpoint_every": 20,
    }
    if name in ("rotnet", "supervised"):
        recipe["optim"]["milestones"] = [1]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(merge(recipe, values)))
    return path


def read_recipe(path: Path, *words: str) -> RunConfig:
    """Its config, with `key=value` words."""
    return validate(RunConfig, override(read_yaml(path), list(words)), str(path))


def read_losses(out: Path) -> list[float]:
    """The losses that a run has logged; lines of checkpoints and of k-NN have none."""
    return [line["loss"] for line in read_log(out / "log.jsonl")[0] if "loss" in line]


def train_rank(recipe: Path, out: Path, words: tuple[str, ...] = (), resume: bool = False) -> None:
    """What a rank of a run does, with a small network; for `tests.processes.launch`."""
    use_tiny_net()
    run_program(lambda: train(read_recipe(recipe, *words), out, resume), "")
