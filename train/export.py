"""The backbone alone, for others: a state_dict that torchvision's networks load, and a card that says what
it is.

    python -m train.export RUN-OR-CHECKPOINT [--out backbone.pt]

    model = torchvision.models.resnet50()
    model.fc = torch.nn.Identity()
    model.load_state_dict(torch.load("backbone.pt"))

A run that ends leaves both in its folder.
"""

import argparse
import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dali_bgaug.errors import UserError, run_program
from dali_bgaug.files import atomic, read_json, sha256, write_json
from train import checkpoint, distributed, foreign
from train.networks import FEATURES, build_backbone

CARD_VERSION = 1
_SHOWN = 20  # names of one kind in an error


class Backbone(NamedTuple):
    """What a file holds of a backbone."""

    weights: dict[str, torch.Tensor]
    config: dict[str, Any]
    """Of the run it comes from."""

    @property
    def sha256(self) -> str:
        """A hash of the weights, wherever they lie."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            digest.update(name.encode())
            digest.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def find_checkpoint(path: Path) -> Path:
    """A checkpoint itself, or the newest one of a run's folder that the first rank sees; every rank must call
    this."""
    if not path.is_dir():
        return path
    found = distributed.broadcast(checkpoint.list_checkpoints(path / "checkpoints"))
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


def read_backbone(path: Path) -> Backbone:
    """The backbone of a run's folder, of a checkpoint, or of exported weights with their card beside them.

    Raises:
        UserError: no such file, or none of these.
    """
    card = path.with_suffix(".json")
    if path.is_file() and card.is_file():
        values = _read_card(card)
        if values.get("sha256", digest := sha256(path)) != digest:
            raise UserError(f"{path}: its checksum is not the one in {card.name}: damaged, or another's card")
        return Backbone(checkpoint.read(path), values["config"])
    state = read_checkpoint(path)
    return Backbone(backbone_weights(state), json.loads(state["config"]))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, or the newest one of a run's folder; every rank must call this.

    Raises:
        UserError: it is none.
    """
    path = find_checkpoint(path)
    state = checkpoint.read(path)
    if not checkpoint.is_whole(state):
        raise UserError(
            f"{path}: neither a checkpoint of a run (version {checkpoint.VERSION}) nor exported weights with "
            f"their card, {path.with_suffix('.json').name}, beside them: {foreign.describe(state)}"
        )
    try:
        known = json.loads(state["config"])["backbone"] in FEATURES
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path}: its config names no backbone that there is; give another file")
    return state


def _read_card(card: Path) -> dict[str, Any]:
    values = read_json(card, "export it again")
    config = values.get("config")
    if not isinstance(config, dict) or str(config.get("backbone")) not in FEATURES:
        raise UserError(f"{card}: not the card of an exported backbone; export it again")
    return values


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load weights that are exactly a network's own.

    What does not match is never dropped: a network would be evaluated that nobody trained.

    Raises:
        UserError: names that are missing, unknown, or of other shapes; lists them.
    """
    own = network.state_dict()
    shapes = [
        f"{name} {list(weights[name].shape)} instead of {list(own[name].shape)}"
        for name in sorted(set(own) & set(weights))
        if weights[name].shape != own[name].shape
    ]
    problems = {
        "missing": sorted(set(own) - set(weights)),
        "unknown": sorted(set(weights) - set(own)),
        "of another shape": shapes,
    }
    if any(problems.values()):
        lines = [f"{what}: {_list(names)}" for what, names in problems.items() if names]
        raise UserError("\n  ".join([f"{source}: these weights are not the network's", *lines]))
    network.load_state_dict(weights)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def export_backbone(state: dict[str, Any], out: Path) -> Path:
    """Write a checkpoint's backbone to `out` and its card beside it, NAME.json; returns the card's path.

    The card: architecture and method, steps and epochs, the whole config, what it was trained on (photos,
    classes, hash of the manifest), the metrics last logged, and the SHA-256 of the weights.
    """
    config = json.loads(state["config"])
    weights = backbone_weights(state)
    # Complete, or an error here and not at its user's.
    load_weights(build_backbone(config["backbone"]), weights, f"the checkpoint of step {state['step']}")
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
    write_json(path, card)
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
    card = export_backbone(read_checkpoint(path), out)
    print(f"{out} and {card}, of {path}")


if __name__ == "__main__":
    run_program(main, "nothing was written")
