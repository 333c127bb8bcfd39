"""Export of a run's backbone: a state_dict that torchvision's networks load, and a card of what it is.

    python -m train.export RUN-OR-CHECKPOINT [--out backbone.pt] [--format timm|safetensors|detectron2]

    model = torchvision.models.resnet50()
    model.fc = torch.nn.Identity()
    model.load_state_dict(torch.load("backbone.pt"))

A run that ends leaves both in its folder.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import nn

from dali_bgaug import __version__
from dali_bgaug.errors import UserError, run_program, some
from dali_bgaug.files import read_json, sha256, write_json
from train import checkpoint, distributed, foreign
from train.export_formats import FORMATS
from train.networks import FEATURES, build_backbone
from train.records import CARD_VERSION, CHECKPOINT_VERSION, Card, CheckpointRecord, ConfigRecord, wrong_field


class Backbone(NamedTuple):
    """A backbone's weights, and the config of its run."""

    weights: dict[str, torch.Tensor]
    config: ConfigRecord
    """Of the run it comes from."""

    @property
    def sha256(self) -> str:
        """A hash of the weights, wherever they lie."""
        return hash_weights(self.weights)


def hash_weights(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a state_dict, the same wherever it is stored."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def find_checkpoint(path: Path) -> Path:
    """A checkpoint itself, or the newest of a run's folder as rank 0 sees it; every rank must call this."""
    if not path.is_dir():
        return path
    found = distributed.broadcast(checkpoint.list_checkpoints(path / "checkpoints"))
    if not found:
        place = path / "checkpoints"
        raise UserError(f"{path}: {place} has no checkpoint; give a run's folder or a checkpoint")
    return found[-1]


def backbone_weights(record: CheckpointRecord) -> dict[str, torch.Tensor]:
    """The backbone's own state_dict out of a checkpoint."""
    prefix = f"{record.backbone}."
    return {
        name.removeprefix(prefix): value.detach().cpu().contiguous()
        for name, value in record.method.items()
        if name.startswith(prefix)
    }


def read_backbone(path: Path) -> Backbone:
    """The backbone of a run's folder, of a checkpoint, or of exported weights with their card beside them.

    Raises:
        UserError: no such file, or none of these.
    """
    card = path.with_suffix(".json")
    if path.is_file() and card.is_file():
        record = read_card(card)
        if record.sha256 != sha256(path):
            raise UserError(f"{path}: its checksum is not the one in {card.name}: damaged, or another's card")
        if record.file_format == "detectron2":
            raise UserError(f"{path}: written for detectron2; give the run it comes from, or another export")
        return Backbone(checkpoint.read(path), record.config)
    record = read_checkpoint(path)
    return Backbone(backbone_weights(record), record.run_config())


def read_checkpoint(path: Path) -> CheckpointRecord:
    """A checkpoint, or the newest one of a run's folder; every rank must call this.

    Raises:
        UserError: it is none.
    """
    path = find_checkpoint(path)
    state = checkpoint.read(path)
    try:
        record = CheckpointRecord.model_validate(state)
    except ValidationError as error:
        raise UserError(
            f"{path}: neither a checkpoint of a run (version {CHECKPOINT_VERSION}) nor exported weights with "
            f"their card, {path.with_suffix('.json').name}, beside them: {foreign.describe(state)}"
        ) from error
    try:
        record.run_config()
    except ValidationError as error:
        raise UserError(f"{path}: its config names no backbone that there is; give another file") from error
    return record


def read_card(path: Path) -> Card:
    """The card of an exported backbone; UserError if it is none, or of another version."""
    try:
        return Card.model_validate(read_json(path, "export it again"))
    except ValidationError as error:
        raise UserError(
            f"{path}: not the card of an exported backbone ({wrong_field(error)}); export it again"
        ) from error


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
        lines = [f"{what}: {some(names, 20)}" for what, names in problems.items() if names]
        raise UserError("\n  ".join([f"{source}: these weights are not the network's", *lines]))
    network.load_state_dict(weights)


def export_backbone(record: CheckpointRecord, out: Path, file_format: str = "torchvision") -> Path:
    """Write a checkpoint's backbone to `out` and its card beside it, NAME.json; returns the card's path.

    file_format: of export_formats.FORMATS.

    Raises:
        UserError: a backbone or a name of the file that the format does not have, or weights that are not
            the backbone's.
    """
    if out.suffix == ".json":
        raise UserError(f"--out={out}: the card gets this name; give the weights another, e.g. backbone.pt")
    config, weights = record.run_config(), backbone_weights(record)
    architecture, known, path = config["backbone"], FORMATS[file_format], out.with_suffix(".json")
    known.check(file_format, architecture, out)
    _keep_other_cards(out, path)
    # Complete, or an error here and not at its user's.
    load_weights(build_backbone(architecture), weights, f"the checkpoint of step {record.step}")
    fields = {
        "architecture": architecture,
        "method": config["method"]["name"],
        "step": record.step,
        "epochs": record.epochs,
        "input": {"normalise": config["data"]["normalise"], "range": [0, 1], "channels": "RGB"},
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    known.write(out, weights, {"format": "pt", **texts})
    card = Card(
        **fields,
        format="dali_bgaug backbone",
        version=CARD_VERSION,
        features=FEATURES[architecture],
        metrics=record.metrics,
        data=record.data,
        sha256=sha256(out),
        package_version=__version__,
        config=config,
        file_format=file_format,
        timm_model=architecture if file_format == "timm" else "",
    )
    write_json(path, card.model_dump(exclude_defaults=True))
    return path


def _keep_other_cards(out: Path, card: Path) -> None:
    """Refuse to replace the card of weights in another format, which could not be read without it."""
    suffixes = {Path(known.file).suffix for known in FORMATS.values()} - {out.suffix}
    for other in (out.with_suffix(suffix) for suffix in sorted(suffixes)):
        if card.is_file() and other.is_file():
            raise UserError(f"--out={out}: {card.name} is the card of {other.name}; give it another name")


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(prog="train.export", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("run", type=Path, help="a run's folder (its newest checkpoint) or a checkpoint")
    names = ", ".join(known.file for known in FORMATS.values())
    add("--out", type=Path, help=f"the weights (default {names}, in RUN or beside the checkpoint)")
    add("--format", choices=FORMATS, default="torchvision", help="of the weights (%(default)s)")
    args = parser.parse_args()
    path = find_checkpoint(args.run)
    out = args.out or (args.run if args.run.is_dir() else path.parent) / FORMATS[args.format].file
    card = export_backbone(read_checkpoint(path), out, args.format)
    print(f"{out} and {card}, of {path}")


if __name__ == "__main__":
    run_program(main, "nothing was written")
