"""The command line: `python -m train.detect`, or `torchrun --nproc-per-node=N -m train.detect`."""

import argparse
from pathlib import Path

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import run_program
from dali_bgaug.processes import follow_launcher
from train.detect.config import DetectConfig
from train.detect.training import train


def main() -> None:
    """Read the recipe, print it or train."""
    parser = argparse.ArgumentParser(
        prog="train.detect", description="Train a detector on a backbone, and test it."
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, help="a recipe, e.g. configs/detect/voc.yaml")
    add("--out", type=Path, required=True, help="folder of the training; what is there goes on")
    add("--print", action="store_true", help="print the resolved config and stop")
    add("overrides", nargs="*", metavar="key=value", help="data=DIR init=RUN …")
    args = parser.parse_intermixed_args()
    config = validate(DetectConfig, override(read_yaml(args.config), args.overrides), str(args.config))
    if args.print:
        print(config.model_dump_json(indent=1))
        return
    follow_launcher()
    train(config, args.out)


if __name__ == "__main__":
    run_program(main, "the same command goes on from the newest checkpoint")
