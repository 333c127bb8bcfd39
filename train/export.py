"""The backbone alone, for others: a state_dict that torchvision's networks load, and a card that says what
it is.

    python -m train.export RUN-OR-CHECKPOINT [--out backbone.pt]

    model = torchvision.models.resnet50()
    model.fc = torch.nn.Identity()
    model.load_state_dict(torch.load("backbone.pt"))

A run that ends leaves both in its folder.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.errors import UserError, run_program
from dali_bgaug.files import atomic, sha256, write_text
from train import checkpoint
from train.networks import FEATURES, build_backbone

CARD_VERSION = 1


def find_checkpoint(path: Path) -> Path:
    """A checkpoint itself, or the newest one of a run's folder."""
    if not path.is_dir():
        return path
    found = checkpoint.list_checkpoints(path / "checkpoints")
    if not found:
        raise UserError(
            f"{path}: {path / 'checkpoints'} has no checkpoint; give a run's folder or a checkpoint"
        )
    return found[-1]


def backbone_weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The backbone's own state_dict out of a checkpoint."""
    prefix = f"{state['backbone']}."
    return {
        name.removeprefix(prefix): value.detach().cpu().contiguous()
        for name, value in state["method"].items()
        if name.startswith(prefix)
    }


def export_backbone(state: dict[str, Any], out: Path) -> Path:
    """Write a checkpoint's backbone to `out` and its card beside it, NAME.json; returns the card's path.

    The card: architecture and method, steps and epochs, the whole config, what it was trained on (photos,
    classes, hash of the manifest), the metrics last logged, and the SHA-256 of the weights.
    """
    config = json.loads(state["config"])
    weights = backbone_weights(state)
    build_backbone(config["backbone"]).load_state_dict(
        weights
    )  # complete, or an error here and not at its user's
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with atomic(out) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    card = {
        "format": "dali_bgaug backbone",
        "version": CARD_VERSION,
        "architecture": config["backbone"],
        "features": FEATURES[config["backbone"]],
        "method": config["method"]["name"],
        "step": state["step"],
        "epochs": state["epochs"],
        "input": {"normalise": config["data"]["normalise"], "range": [0, 1], "channels": "RGB"},
        "metrics": state["metrics"],
        "data": state["data"],
        "sha256": sha256(out),
        "config": config,
    }
    path = out.with_suffix(".json")
    write_text(path, json.dumps(card, indent=1) + "\n")
    return path


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(prog="train.export", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder (its newest checkpoint) or a checkpoint")
    parser.add_argument(
        "--out", type=Path, help="the weights (default RUN/backbone.pt, or beside the checkpoint)"
    )
    args = parser.parse_args()
    path = find_checkpoint(args.run)
    out = args.out or (args.run if args.run.is_dir() else path.parent) / "backbone.pt"
    if out.suffix == ".json":
        raise UserError(f"--out={out}: the card gets this name; give the weights another, e.g. backbone.pt")
    card = export_backbone(checkpoint.load(path), out)
    print(f"{out} and {card}, of {path}")


if __name__ == "__main__":
    run_program(main, "nothing was written")
