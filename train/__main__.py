"""The command line: `python -m train`, or `torchrun --nproc-per-node=8 -m train` (a process a GPU)."""

import argparse
import logging
import sys
from pathlib import Path

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import run_program
from dali_bgaug.processes import follow_launcher
from train.config import RunConfig
from train.device import choose_torch_device
from train.health import check_health
from train.loop import train


def main() -> None:
    """Read the recipe, and print it, check that it can be trained, or train."""
    parser = argparse.ArgumentParser(prog="train", description="Pre-train a backbone.")
    add = parser.add_argument
    add("--config", type=Path, required=True, help="a recipe, e.g. configs/moco_v2_medium_swaps.yaml")
    add("--out", type=Path, help="folder of the run (default out/NAME-OF-THE-RECIPE)")
    add(
        "--init",
        type=Path,
        help="initial weights: a run or checkpoint of the method, or an export",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    auto = "go on if there is a checkpoint, start if not (for job queues)"
    again.add_argument("--auto-resume", action="store_true", help=auto)
    add(
        "--check",
        action="store_true",
        help="look at machines, data, disk and a batch, and stop: status 1 if any fails",
    )
    add("--print", action="store_true", help="print the resolved config and stop")
    add("overrides", nargs="*", metavar="key=value", help="e.g. data.batch_size=256 optim.lr=0.06")
    args = parser.parse_intermixed_args()
    values = override(read_yaml(args.config), args.overrides)
    if args.init is not None:
        values["init"] = str(args.init)
    config = validate(RunConfig, values, " ".join([str(args.config), *args.overrides]))
    out = args.out or Path("out") / args.config.stem
    if args.print:
        print(config.model_dump_json(indent=1))
        return
    follow_launcher()
    if args.check:
        if not check_health(config, out, choose_torch_device(config.data.device)):
            sys.exit(1)
    else:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("dali_bgaug").setLevel(logging.INFO)  # what each view goes through
        train(config, out, "auto" if args.auto_resume else args.resume)


if __name__ == "__main__":
    run_program(main, "--auto-resume goes on from the run's last checkpoint, if it has one")
