"""A small detection training: its trunk, photos in VOC's layout, a recipe of seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dali_bgaug.config import validate
from dali_bgaug.errors import run_program
from dali_bgaug.files import sha256, write_json
from train import checkpoint
from train.detect.config import DetectConfig
from train.detect.training import train
from train.networks import FEATURES, build_backbone
from train.records import CARD_VERSION, Card

NORMALISE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


def write_backbone(path: Path, name: str = "resnet18") -> dict[str, torch.Tensor]:
    """An exported backbone with random weights, the same each time, and its card; returns the weights."""
    torch.manual_seed(0)
    weights = build_backbone(name).state_dict()
    checkpoint.save(path, dict(weights))
    card = Card(
        format="dali_bgaug backbone",
        version=CARD_VERSION,
        architecture=name,
        features=FEATURES[name],
        method="moco_v2",
        step=1,
        epochs=1,
        input={},
        metrics={},
        data={},
        sha256=sha256(path),
        config={"backbone": name, "method": {"name": "moco_v2"}, "data": {"normalise": NORMALISE}},
    )
    write_json(path.with_suffix(".json"), card.model_dump())
    return dict(weights)


def write_set(root: Path, count: int = 6) -> dict[str, Any]:
    """Photos of 48 x 40 pixels in VOC's layout: one without an object, the others with a bright square,
    the last two to test on.

    Returns the values of a DetectConfig.
    """
    rng = np.random.default_rng(0)
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / "VOC2007" / name).mkdir(parents=True)
    stems = [f"{number:06d}" for number in range(count + 1)]
    for stem in stems:
        pixels = rng.integers(0, 60, (40, 48, 3)).astype(np.uint8)
        left, top, side = (int(value) for value in rng.integers((2, 2, 14), (20, 12, 24)))
        entry = ""
        if stem != stems[0]:
            pixels[top : top + side, left : left + side] += np.array([180, 60, 0], np.uint8)
            corners = {"xmin": left + 1, "ymin": top + 1, "xmax": left + side, "ymax": top + side}
            box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
            entry = f"<object><name>square</name><bndbox>{box}</bndbox></object>"
        Image.fromarray(pixels).save(root / f"VOC2007/JPEGImages/{stem}.jpg", quality=95)
        size = "<size><width>48</width><height>40</height></size>"
        (root / f"VOC2007/Annotations/{stem}.xml").write_text(f"<annotation>{size}{entry}</annotation>")
    for split, part in (("trainval", stems[:-2]), ("test", stems[-2:])):
        (root / f"VOC2007/ImageSets/Main/{split}.txt").write_text("\n".join(part) + "\n")
    return {
        "data": str(root),
        "train": ["VOC2007/trainval"],
        "backbone": "resnet18",
        "batch_size": 2,
        "steps": 4,
        "warmup_steps": 2,
        "milestones": [3],
        "short_sides": [32, 40],
        "longest": 64,
        "anchors": [16, 24],
        "samples": 8,
        "proposals": [20, 10],
        "statistics": 1,
        "log_every": 1,
        "checkpoint_every": 2,
        "device": "cpu",
        "threads": 1,
    }


def read_config(values: dict[str, Any], **changes: Any) -> DetectConfig:
    """The config of these values."""
    return validate(DetectConfig, {**values, **changes}, "test")


def train_rank(values: dict[str, Any], out: Path) -> None:
    """What a rank of a training does; for `tests.helpers.processes.launch`."""
    run_program(lambda: train(read_config(values), out), "")
