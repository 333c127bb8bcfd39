"""Every photo of a set is evaluated once, in order, on one, two and three ranks."""

from pathlib import Path

import pytest
import torch

from tests.helpers.processes import run
from tests.helpers.runs import use_tiny_net
from tests.helpers.sets import COLOURS, image, untrained_run
from train.distributed import all_gather_uneven, process_group, rank
from train.evaluate.backbone import load_backbone
from train.evaluate.background_gap import background_gap, open_splits
from train.evaluate.classifier import count_right, right_in_top
from train.evaluate.fast import linear_fast
from train.features import Runtime, evaluation_config, extract_features
from train.neighbours import knn

CPU = torch.device("cpu")
CLASSES = ["blue", "green", "red"]


def _level(images: torch.Tensor) -> torch.Tensor:
    """Which photo of `flat` an image is, by its corner's grey: [n, 1]."""
    grey = images[:, 1, 0, 0] * 0.224 + 0.456
    return (grey * 255 / 2).round()[:, None]


def _by_colour(images: torch.Tensor) -> torch.Tensor:
    """Logits [n, 3] of blue, green, red: how much there is of each."""
    return images.mean(dim=(2, 3)).flip(1)


def _below_twenty(images: torch.Tensor) -> torch.Tensor:
    """Logits of two classes: 0, which all photos of `flat` have, is likelier for the first twenty levels."""
    level = _level(images)
    return torch.cat([torch.full_like(level, 19.5), level], dim=1)


def _evaluate(flat: Path, coloured: Path, checkpoint: Path, out: Path) -> None:
    use_tiny_net()
    with process_group(CPU):
        backbone = load_backbone(checkpoint)
        trained = backbone.config.data
        runtime = Runtime(batch_size=18, device="cpu", threads=1)
        data = evaluation_config(trained, flat, runtime=runtime)
        rows, _ = extract_features(_level, data, CPU, "levels")
        levels = all_gather_uneven(rows).flatten().tolist()
        right, photos = count_right(_below_twenty, data, CPU, "count")
        colours = evaluation_config(trained, coloured)
        found = knn(backbone.network, colours, colours, CPU)
        fast = linear_fast(load_backbone(checkpoint), colours, colours, CPU, rates=(0.1,))
        splits = open_splits(out.parent / "challenge", CLASSES)
        reading = evaluation_config(trained, coloured, runtime=Runtime(batch_size=6))
        gap = background_gap(_by_colour, splits, reading, CPU)
        if rank() == 0:
            torch.save((levels, right, photos, found["top1"], fast["top1"], fast["photos"], gap), out)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_every_photo_counts_once(tmp_path: Path, flat: Path, coloured: Path, ranks: int) -> None:
    """`flat` has 64 photos with the grey levels 0, 2, …, 126, in one class."""
    checkpoint = untrained_run(tmp_path, coloured)
    for label, name in enumerate(CLASSES):
        for number in range(5):  # three of five are of their folder's colour
            colour = CLASSES[label if number < 3 else (label + 1) % 3]
            image(tmp_path / "challenge" / "mixed_rand" / name / f"{number}.png", COLOURS[colour])
    run(_evaluate, flat, coloured, checkpoint, tmp_path / "found.pt", ranks=ranks)
    levels, right, photos, neighbours, linear, tested, gap = torch.load(tmp_path / "found.pt")
    assert gap == {"bg_gap": None, "splits": {"mixed_rand": {"accuracy": 0.6, "photos": 15}}}
    assert sorted(levels) == list(range(64))
    assert (right, photos) == ([20, 64], 64)
    assert (neighbours, linear, tested) == (1.0, 1.0, 36)


def test_top_five() -> None:
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7]])
    assert right_in_top(logits, torch.tensor([0, 6])).tolist() == [2, 2]
    assert right_in_top(logits, torch.tensor([4, 2])).tolist() == [0, 2]
    assert right_in_top(logits, torch.tensor([5, 1])).tolist() == [0, 0]
    assert right_in_top(logits[:, :3], torch.tensor([2, 0])).tolist() == [0, 2]
