"""Import of a backbone from another project's file, with a card: it is evaluated like a run's own.

    python -m train.import_weights moco_v2_800ep_pretrain.pth.tar --config configs/moco_v2_full_none.yaml \\
        --out backbone.pt

The recipe says what the weights are: their architecture, their method, how their input was normalised.
"""

import argparse
from pathlib import Path

from dali_bgaug.config import read_yaml, validate
from dali_bgaug.errors import run_program
from dali_bgaug.files import sha256
from train import checkpoint
from train.config import RunConfig
from train.export import export_backbone
from train.foreign import take_backbone
from train.records import CHECKPOINT_VERSION, CheckpointRecord


def import_backbone(path: Path, config: RunConfig, out: Path, prefix: str | None = None) -> Path:
    """Write a backbone out of another project's file to `out`, with its card; returns the card's path.

    Args:
        path: a state_dict, or a file that has one.
        config: of the recipe it was made by, or one like it.
        out: the weights to write.
        prefix: of the backbone's names in the file; None finds it.

    Raises:
        UserError: no such backbone in it, or several.
    """
    weights = take_backbone(checkpoint.read(path), config.backbone, path, prefix=prefix)
    record = CheckpointRecord(
        version=CHECKPOINT_VERSION,
        **{"step": 0, "epochs": 0, "metrics": {}, "optimiser": {}, "ranks": []},
        identity=config.identity(),
        config=config.model_dump_json(),
        backbone="backbone",
        method={f"backbone.{name}": value for name, value in weights.items()},
        data={"imported_from": path.name, "sha256": sha256(path)},
    )
    return export_backbone(record, out)


def main() -> None:
    """Import from the command line."""
    parser = argparse.ArgumentParser(prog="train.import_weights", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("file", type=Path, help="what torch.save wrote there, or a .safetensors")
    add("--config", type=Path, required=True, help="a recipe like theirs")
    add("--out", type=Path, default=Path("backbone.pt"), help="the weights to write (%(default)s)")
    add("--prefix", help="of the names in the file, e.g. module.encoder_q. (default: found)")
    args = parser.parse_args()
    config = validate(RunConfig, read_yaml(args.config), str(args.config))
    card = import_backbone(args.file, config, args.out, args.prefix)
    print(f"{args.out} and {card}, of {args.file}")


if __name__ == "__main__":
    run_program(main, "nothing was written")
