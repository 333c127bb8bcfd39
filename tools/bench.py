"""Measure the loader: images/s of each stage of each pipeline, interleaved in one run.

    python -m tools.bench --shards out/demo/shards [--pipelines moco_v2,swav] [--json FILE] [key=value …]

    read          samples from the shards, nothing decoded
    decode        + every photo decoded once
    plain         + a pipeline's views: crop, flip, jitter, grayscale, blur, normalise
    bg_…          + foreground-aware windows (fg_min .1) and backgrounds (p .2): rm, random, and for moco_v2
                  swaps, with its negative
    torchvision   the yardstick, on the last of these: PIL, torchvision and a DataLoader with as many workers
                  as the pipeline has threads

Every stage is measured once a round, in a new order each time, from an empty pipeline to a drained one: no
stage's work runs in another's time, and a busy neighbour slows all alike. Rates are medians over rounds with
the 2.5 % and 97.5 % quantiles; an image is a photo with all its views. CPU time is that of this process and
its workers, also the median.

With --memory the loader of the first pipeline's fullest stage first runs for so many batches. Its memory is
what is resident without mapped files, watched after a tenth of them.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dali_bgaug.config import override, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.journal import Journal
from dali_bgaug.loader import Share
from dali_bgaug.shards import open_shards
from pipelines import LoaderConfig, build_loader, build_pipeline
from pipelines.build import choose_device, default_threads
from pipelines.config import METHODS
from tools._cli import run
from tools.bench_stages import DaliStage, Stage, TorchvisionStage, own_memory, partial_pipeline, time_round

PIPELINES = tuple(name for name in METHODS if name != "evaluation")  # which has no stages
SHARED = "-"
"""The pipeline of stages that are the same in all."""
YARDSTICK = "torchvision"
RATIOS = ("full_over_decode", "with_over_without", "over_torchvision")
Configs = dict[str, dict[str, LoaderConfig]]
"""By pipeline and stage."""


def stage_configs(values: dict[str, Any], pipeline: str) -> dict[str, LoaderConfig]:
    """The stages of one pipeline, the fullest last."""
    kinds = ["none", "rm", "random", *(["swaps"] if pipeline == "moco_v2" else [])]
    configs = {}
    for kind in kinds:
        stage = [f"background.kind={kind}", f"crop.fg_min={0 if kind == 'none' else 0.1}"]
        options = override({**values, "pipeline": pipeline}, stage)
        configs["plain" if kind == "none" else f"bg_{kind}"] = validate(
            LoaderConfig, options, f"the benchmark's options for {pipeline}"
        )
    return configs


def _fullest(options: dict[str, LoaderConfig]) -> LoaderConfig:
    return list(options.values())[-1]


def measure(
    values: dict[str, Any],
    rounds: int,
    batches: int,
    pipelines: Sequence[str] = ("moco_v2",),
    torchvision: bool = True,
) -> dict[str, Any]:
    """Run the benchmark on a LoaderConfig's plain values; returns what the JSON file holds."""
    configs = {pipeline: stage_configs(values, pipeline) for pipeline in pipelines}
    first = configs[pipelines[0]]["plain"]
    device_id = choose_device(first.device, None)
    with contextlib.ExitStack() as stack:
        stages = _build(configs, torchvision, device_id, stack)
        keys, order = list(stages), np.random.default_rng(0)
        times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in keys}
        with tqdm(total=rounds * len(keys), desc="bench", unit="round") as bar:
            for _ in range(rounds):
                for place in order.permutation(len(keys)):
                    times[keys[place]].append(time_round(stages[keys[place]], batches))
                    bar.update()
    rows = []
    for pipeline, stage in keys:
        seconds, cpu = np.array(times[pipeline, stage]).T / first.batch_size
        rows.append(
            {
                "pipeline": pipeline,
                "stage": stage,
                "images_per_s": _spread(1 / seconds),
                "cpu_ms_per_image": round(1000 * float(np.median(cpu)), 3),
            }
        )
    return {
        "machine": machine(device_id),
        "rounds": rounds,
        "batches": batches,
        "config": {pipeline: _settings(_fullest(options)) for pipeline, options in configs.items()},
        "rows": rows,
        "ratios": _ratios(configs, rows),
    }


def _build(
    configs: Configs, torchvision: bool, device_id: int | None, stack: contextlib.ExitStack
) -> dict[tuple[str, str], Stage]:
    """All stages by pipeline and name, warm and drained."""
    first = next(iter(configs.values()))["plain"]
    device = torch.device("cpu") if device_id is None else torch.device("cuda", device_id)
    yardsticks: dict[str, Stage] = {}
    # Workers are forked with the first batch: before there are threads of DALI that may hold a lock.
    for pipeline, options in configs.items() if torchvision else ():
        config = _fullest(options)
        yardstick = TorchvisionStage(config, config.threads or default_threads(), device)
        yardsticks[pipeline] = stack.enter_context(yardstick)
        yardstick.run(1)
    manifest = open_shards(first.shards, first.verify, "--shards")
    share = Share(manifest.samples, first.batch_size, 0, 1)
    stages: dict[tuple[str, str], Stage] = {}
    for name in ("read", "decode"):
        graph = partial_pipeline(first, manifest, share, device_id, name == "decode")
        stages[SHARED, name] = DaliStage(graph, first.prefetch)
    for pipeline, options in configs.items():
        for name, config in options.items():
            journal = Journal(config.shards)  # part of the loader's work
            graph, _ = build_pipeline(config, manifest, share, device_id=device_id, journal=journal)
            stages[pipeline, name] = DaliStage(graph, config.prefetch)
        if pipeline in yardsticks:
            stages[pipeline, YARDSTICK] = yardsticks[pipeline]
    for stage in stages.values():
        stage.run(max(4, first.prefetch))
    return stages


def _ratios(configs: Configs, rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    rates = {(row["pipeline"], row["stage"]): row["images_per_s"]["median"] for row in rows}
    ratios = {}
    for pipeline, options in configs.items():
        for stage in options:
            rate = rates[pipeline, stage]
            over = {
                "full_over_decode": rate / rates[SHARED, "decode"],
                "with_over_without": rate / rates[pipeline, "plain"],
            }
            if stage == list(options)[-1] and (pipeline, YARDSTICK) in rates:
                over["over_torchvision"] = rate / rates[pipeline, YARDSTICK]
            ratios[f"{pipeline}/{stage}"] = {name: round(ratio, 4) for name, ratio in over.items()}
    return ratios


def _spread(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {"median": round(float(median), 1), "low": round(float(low), 1), "high": round(float(high), 1)}


def _settings(config: LoaderConfig) -> dict[str, Any]:
    threads = config.threads or default_threads()
    return {**config.model_dump(mode="json", exclude={"shards", "threads"}), "threads": threads}


def measure_memory(values: dict[str, Any], pipeline: str, batches: int) -> dict[str, Any]:
    """Run the loader of a pipeline's fullest stage; memory from a tenth of the run to its end, every 20th."""
    stage, config = list(stage_configs(values, pipeline).items())[-1]
    places = {round(batches * twentieth / 20) for twentieth in range(2, 21)}
    taken = []
    with build_loader(config) as loader, tqdm(total=batches, desc="memory", unit="batch") as bar:
        endless = itertools.chain.from_iterable(itertools.repeat(loader))
        for number, _ in enumerate(itertools.islice(endless, batches), 1):
            if number in places:
                taken.append((number, own_memory()))
            bar.update()
    at, memory = np.array(taken, np.float64).T
    return {
        "loader": f"{pipeline}/{stage}",
        "batches": batches,
        "first_mb": round(memory[0] / 1e6, 1),
        "last_mb": round(memory[-1] / 1e6, 1),
        "max_mb": round(memory.max() / 1e6, 1),
        "slope_kb_per_batch": round(np.polyfit(at, memory / 1e3, 1)[0], 3),
    }


def machine(device_id: int | None) -> dict[str, Any]:
    """What a figure was measured on."""
    return {
        "device": "cpu" if device_id is None else torch.cuda.get_device_name(device_id),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "dali": version("nvidia-dali-cuda120"),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "date": time.strftime("%Y-%m-%d"),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    place, config = result["machine"], next(iter(result["config"].values()))
    lines = [
        f"{place['device']}, {place['cpus']} CPUs, batch {config['batch_size']}, "
        f"{config['threads']} threads, DALI {place['dali']}, {place['date']}",
        "",
        "| pipeline | stage | images/s | 95 % | CPU ms/image | ÷ decode | ÷ plain | ÷ torchvision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        rate = row["images_per_s"]
        ratios = result["ratios"].get(f"{row['pipeline']}/{row['stage']}", {})
        cells = [
            row["pipeline"],
            row["stage"],
            f"{rate['median']:.0f}",
            f"{rate['low']:.0f}-{rate['high']:.0f}",
            f"{row['cpu_ms_per_image']:.2f}",
            *(f"{ratios[name]:.2f}" if name in ratios else "" for name in RATIOS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if memory := result.get("memory"):
        lines += [
            "",
            f"Memory of {memory['loader']} over {memory['batches']} batches: {memory['first_mb']:.0f} MB "
            f"after a tenth, {memory['last_mb']:.0f} at the end, {memory['max_mb']:.0f} at most, "
            f"{memory['slope_kb_per_batch']:+.2f} kB a batch",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("out/bench.json"), help="result file (%(default)s)")
    parser.add_argument("--pipelines", default="moco_v2", help=f"of {','.join(PIPELINES)} (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="per round and stage (%(default)s)")
    parser.add_argument("--no-torchvision", action="store_true", help="leave out the yardstick")
    parser.add_argument(
        "--memory",
        type=int,
        default=0,
        metavar="BATCHES",
        help="watch the memory of the first pipeline's loader",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="loader config, e.g. batch_size=128"
    )
    args = parser.parse_intermixed_args()
    if args.rounds < 1 or args.batches < 1:
        raise UserError(f"--rounds={args.rounds} --batches={args.batches}: both must be at least 1")
    if args.memory and args.memory < 20:
        raise UserError(f"--memory={args.memory}: at least 20 batches, or 0 for none")
    pipelines = list(dict.fromkeys(args.pipelines.split(",")))
    if unknown := set(pipelines) - set(PIPELINES):
        raise UserError(f"--pipelines: {', '.join(sorted(unknown))}: there are {', '.join(PIPELINES)}")
    values = override({"shards": str(args.shards), "batch_size": 64}, args.overrides)
    if "pipeline" in values:
        raise UserError(f"pipeline={values['pipeline']}: name pipelines with --pipelines")
    memory = {"memory": measure_memory(values, pipelines[0], args.memory)} if args.memory else {}
    result = measure(values, args.rounds, args.batches, pipelines, not args.no_torchvision) | memory
    write_text(args.json, json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(f"\n{args.json}")


if __name__ == "__main__":
    run(main)
