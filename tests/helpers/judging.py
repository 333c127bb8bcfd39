"""Photos whose class is their colour, a network that sees it, and a score that counts what it judges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from dali_bgaug.views.options import NormaliseOptions
from train import distributed
from train.evaluate.robustness.protocol import UNREAD, EvaluatedNetwork, RobustnessSet
from train.evaluate.robustness.run import evaluate_set, set_config
from train.features import Runtime

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
CPU = torch.device("cpu")
RUNTIME = Runtime(batch_size=4, device="cpu", threads=1)


class MeanColour(nn.Module):
    """Logits of red, green and blue: the means of the channels, after batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[n, 3, H, W] -> [n, 3]."""
        return self.bn(images).mean(dim=(2, 3))


class Seen:
    """Whether a photo's colour is the class of its number, and how often each was judged."""

    criteria = ("right", "class")

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def judge(
        self, network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """Outcomes: see `protocol.Score`."""
        self.numbers += numbers.tolist()
        answers = network(images).argmax(dim=1)
        return torch.stack([(answers == numbers % 3).long(), answers], dim=1)

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """The result: see `protocol.Score`."""
        read = outcomes[outcomes[:, 0] != UNREAD]
        return {
            **{"value": float(read[:, 0].mean()), "metric": "right", "photos": len(read)},
            **{"rows": outcomes.tolist(), "judged": sorted(self.numbers)},
        }


def colour_network() -> EvaluatedNetwork:
    """A network that is right about every photo."""
    classes, normalise = ["red", "green", "blue"], NormaliseOptions(mean=(0.5,) * 3, std=(0.5,) * 3)
    return EvaluatedNetwork("colours", MeanColour(), classes, 32, normalise, "a" * 64, {"backbone": "mean"})


def colour_photos(folder: Path, count: int) -> list[str]:
    """Photo i has colour i % 3; names are in another order than numbers."""
    files = []
    for number in range(count):
        files.append(f"{'zyx'[number % 3]}/{number:02d}.png")
        (folder / files[-1]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40), COLOURS[number % 3]).save(folder / files[-1])
    return files


def colour_set(folder: Path, files: list[str], **values: Any) -> RobustnessSet:
    """A set of them."""
    return RobustnessSet(
        **{"name": "mine", "protocol": "folders", "score": Seen()} | values, folder=folder, files=files
    )


def judge_rank(folder: Path, files: list[str], out: Path) -> None:
    """What a rank does; it writes its result."""
    import json

    with distributed.process_group(CPU):
        network, photos = colour_network(), colour_set(folder, files)
        runtime = Runtime(batch_size=4 * distributed.world_size(), device="cpu", threads=1)
        found = evaluate_set(network, photos, set_config(network, photos, runtime, "ignore"), CPU)
        (out / f"{distributed.rank()}.json").write_text(json.dumps(found))


def small_classifier(name: str) -> nn.Module:
    """One of three seeded networks, [n, 3, 8, 8] -> logits [n, 4], in evaluation mode."""
    layers: dict[str, Callable[[], list[nn.Module]]] = {
        "conv": lambda: [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)],
        "smooth": lambda: [nn.Conv2d(3, 6, 5), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)],
        "deep": lambda: [
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)),
        ],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = nn.Sequential(*layers[name]())
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape) * 0.3
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network.eval()


def class_folders(folder: Path, count: int) -> Path:
    """Photos in folders of the network's classes."""
    for number in range(count):
        path = folder / ("red", "green", "blue")[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40), COLOURS[number % 3]).save(path)
    return folder


def run_command(words: list[str], seconds: float = 0) -> None:
    """`python -m train.evaluate robustness` with the network that sees colours in a run's place.

    seconds: that the network takes for a batch.
    """
    import sys
    import time

    from train.evaluate import __main__ as program
    from train.evaluate.robustness import command

    network = colour_network()
    network.network.register_forward_hook(lambda *_: time.sleep(seconds))
    before = sys.argv, command.load_run_classifier
    command.load_run_classifier = lambda _: network
    sys.argv = ["train.evaluate", "robustness", *words, "device=cpu", "threads=1"]
    try:
        program.main()
    finally:
        sys.argv, command.load_run_classifier = before
