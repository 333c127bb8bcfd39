"""A small detection training: its trunk, photos in VOC's layout, a recipe of seconds."""

from pathlib import Path

import torch

from dali_bgaug.files import sha256, write_json
from train import checkpoint
from train.networks import FEATURES, build_backbone
from train.records import CARD_VERSION, Card

NORMALISE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


def write_backbone(path: Path, name: str = "resnet18") -> dict[str, torch.Tensor]:
    """An exported backbone with random weights and its card; returns the weights."""
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
