"""The command line: `python -m train.saliency`, or `torchrun --nproc-per-node=N -m train.saliency`."""

import argparse
from pathlib import Path

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import run_program
from dali_bgaug.processes import follow_launcher


def main() -> None:
    """Read the recipe, print it or train."""
    # Workers import this module too, and need no torch.
    from train.saliency.config import SaliencyConfig

    parser = argparse.ArgumentParser(
        prog="train.saliency", description="Train a saliency network without labels."
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, help="a recipe, e.g. configs/saliency/small.yaml")
    add("--out", type=Path, required=True, help="folder of the training; what is there goes on")
    add("--print", action="store_true", help="print the resolved config and stop")
    add("overrides", nargs="*", metavar="key=value", help="photos=DIR maps.rbd=STORE …")
    args = parser.parse_intermixed_args()
    config = validate(SaliencyConfig, override(read_yaml(args.config), args.overrides), str(args.config))
    if args.print:
        print(config.model_dump_json(indent=1))
        return
    from train.saliency.training import train

    follow_launcher()
    train(config, args.out)


if __name__ == "__main__":
    run_program(main, "the same command goes on from the last epoch")
