"""Training throughput of a recipe, with its loader and with one batch held on the device.

    python -m train.speed --config configs/moco_v2_medium.yaml [--rounds 5] [--steps 20] [key=value …]

Rounds of the two alternate. A round with the loader begins when the batches are used up that were ready
before it. `torchrun --nproc-per-node=8 -m train.speed …` measures all ranks, rank 0 reports. On the CPU
loader and model share the cores: the ratio then says what the loader costs, not whether it keeps up.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import UserError, run_program
from dali_bgaug.files import write_text
from train import distributed
from train.config import RunConfig
from train.device import choose_torch_device
from train.method import Batch
from train.monitor import Clock
from train.trainer import Trainer


def measure(config: RunConfig, rounds: int, steps: int) -> dict[str, Any]:
    """Alternate rounds of `steps` steps; every rank must call this.

    Returns: `steps_per_s` and `images_per_s` with the loader and with a held batch, medians over rounds;
    `loader_over_held`; `waiting`, the share of a step's time spent waiting for the loader; the recipe's name.
    """
    device = choose_torch_device(config.data.device)
    seconds: dict[str, list[float]] = {"loader": [], "held": []}
    waits = []
    with distributed.process_group(device), Trainer(config, device) as trainer:
        clock = Clock(trainer.loader, distributed.world_size())
        source = itertools.chain.from_iterable(clock.batches() for _ in itertools.count())
        batch = {name: tensor.to(device, copy=True) for name, tensor in next(source).items()}
        held = itertools.repeat(batch)
        for batches in (held, source):  # compiles, tunes, warms
            _time(trainer, batches, 3, device)
        with tqdm(total=2 * rounds, desc="train", unit="round", disable=distributed.rank() > 0) as bar:
            for _ in range(rounds):
                # Till the loader has nothing left to do: it must not work in the held batch's time.
                time.sleep((config.data.prefetch + 1) * max(seconds["loader"][-1:], default=0.5))
                seconds["held"].append(_time(trainer, held, steps, device))
                bar.update()
                for _ in range(config.data.prefetch + 1):  # ready since, or while, the model had its own
                    next(source)
                clock.restart()
                seconds["loader"].append(_time(trainer, source, steps, device))
                waits.append(clock.read().data_wait)
                bar.update()
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "method": config.method.name,
        "backbone": config.backbone,
        "background": config.data.background.kind,
        "batch_size": config.data.batch_size,
        "ranks": distributed.world_size(),
        "rounds": rounds,
        "steps": steps,
        "steps_per_s": {name: round(1 / value, 4) for name, value in medians.items()},
        "images_per_s": {name: round(config.data.batch_size / value, 2) for name, value in medians.items()},
        "loader_over_held": round(medians["held"] / medians["loader"], 4),
        "waiting": round(float(np.median(waits)), 4),
    }


def _time(trainer: Trainer, batches: Iterator[Batch], steps: int, device: torch.device) -> float:
    """Seconds a step."""
    trainer.steps_done = 0  # a short recipe may have fewer steps than are timed
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / steps


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="train.speed", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config", type=Path, required=True, help="a recipe of configs/")
    add("--rounds", type=int, default=5, help="(%(default)s)")
    add("--steps", type=int, default=20, help="per round (%(default)s)")
    add("--json", type=Path, help="result file")
    add("overrides", nargs="*", metavar="key=value", help="e.g. data.batch_size=256")
    args = parser.parse_intermixed_args()
    if args.rounds < 1 or args.steps < 1:
        raise UserError(f"--rounds={args.rounds} --steps={args.steps}: both must be at least 1")
    config = validate(RunConfig, override(read_yaml(args.config), args.overrides), str(args.config))
    found = {"config": args.config.name, **measure(config, args.rounds, args.steps)}
    if int(os.environ.get("RANK", "0")) == 0:
        if args.json:
            write_text(args.json, json.dumps(found, indent=1) + "\n")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run_program(main, "run it again")
