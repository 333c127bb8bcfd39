"""Measure the loader: images/s of each stage of MoCo-v2's pipeline, interleaved in one run.

    python -m tools.bench --shards out/demo/shards [--json FILE] [data keys as key=value …]

    read     samples from the shards, nothing decoded
    decode   + every photo decoded once
    plain    + two views: crop, flip, jitter, grayscale, blur, normalise
    bg_rm, bg_random, bg_swaps   + foreground-aware windows (fg_min .1) and backgrounds (p .2; swaps: + the
    negative)

Every stage is measured once a round, from an empty pipeline to a drained one, so that no stage's work runs in
another's time; figures are medians over rounds with the 2.5 % and 97.5 % quantiles.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import Pipeline, pipeline_def
from tqdm import tqdm

from dali_bgaug.config import override, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.graph.context import Context
from dali_bgaug.graph.crop import decode as decode_photo
from dali_bgaug.graph.read import read
from dali_bgaug.loader import Share
from dali_bgaug.shards import Manifest, open_shards
from pipelines import LoaderConfig, build_pipeline
from pipelines.build import choose_device, default_threads
from tools._cli import run

BACKGROUNDS = {"plain": "none", "bg_rm": "rm", "bg_random": "random", "bg_swaps": "swaps"}
STAGES = ("read", "decode", *BACKGROUNDS)


def _partial(
    config: LoaderConfig, manifest: Manifest, share: Share, device_id: int | None, decode: bool
) -> Pipeline:
    """The start of every pipeline: read, or read and decode."""
    context = Context(
        device="cpu" if device_id is None else "gpu",
        seed=config.seed,
        rank=0,
        batch_size=share.batch_size,
        hw_decoder_load=config.hw_decoder_load,
    )
    threads = config.threads or default_threads()

    @pipeline_def(
        batch_size=share.batch_size,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=config.prefetch,
    )
    def define() -> Any:
        photo = read(context, config.shards, manifest, ["jpg"], mmap=config.mmap)["jpg"]
        if not decode:
            return photo
        return decode_photo(context, photo)

    return define()


def _pipelines(values: dict[str, Any], device_id: int | None) -> tuple[LoaderConfig, dict[str, Pipeline]]:
    config = validate(LoaderConfig, values, "the benchmark's options")
    manifest = open_shards(config.shards, config.verify, "--shards")
    share = Share(manifest.samples, config.batch_size, 0, 1)
    built = {
        stage: _partial(config, manifest, share, device_id, stage == "decode") for stage in ("read", "decode")
    }
    for stage, kind in BACKGROUNDS.items():
        with_kind = override(
            values, [f"background.kind={kind}", f"crop.fg_min={0 if kind == 'none' else 0.1}"]
        )
        options = validate(LoaderConfig, with_kind, "the benchmark's options")
        built[stage], _ = build_pipeline(options, manifest, share, device_id=device_id)
    return config, built


def _round(pipeline: Pipeline, batches: int, ahead: int) -> float:
    """Seconds for so many batches, from an empty pipeline to a drained one."""
    start = time.perf_counter()
    for number in range(batches + ahead):
        if number < batches:
            pipeline.schedule_run()
        if number >= ahead:
            pipeline.outputs()
    return time.perf_counter() - start


def measure(values: dict[str, Any], rounds: int, batches: int) -> dict[str, Any]:
    """Run the benchmark on a LoaderConfig's plain values; returns what the JSON file holds."""
    device_id = choose_device(values.get("device", "auto"), None)
    config, built = _pipelines(values, device_id)
    seconds: dict[str, list[float]] = {stage: [] for stage in built}
    for pipeline in built.values():
        pipeline.schedule_run()  # the first call schedules `prefetch` batches
        for _ in range(config.prefetch):
            pipeline.outputs()
        _round(pipeline, max(4, config.prefetch), config.prefetch)
    with tqdm(total=rounds * len(built), desc="bench", unit="round") as bar:
        for _ in range(rounds):
            for stage, pipeline in built.items():
                seconds[stage].append(_round(pipeline, batches, config.prefetch))
                bar.update()
    images = batches * config.batch_size
    rows = [
        {"pipeline": config.pipeline, "stage": stage, "images_per_s": _spread(images / np.array(times))}
        for stage, times in seconds.items()
    ]
    rate = {row["stage"]: row["images_per_s"]["median"] for row in rows}
    ratios = {
        f"{config.pipeline}/{stage}": {
            "full_over_decode": round(rate[stage] / rate["decode"], 4),
            "with_over_without": round(rate[stage] / rate["plain"], 4),
        }
        for stage in BACKGROUNDS
    }
    return {"machine": machine(device_id), "config": _settings(config), "rows": rows, "ratios": ratios}


def _spread(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {"median": round(float(median), 1), "low": round(float(low), 1), "high": round(float(high), 1)}


def _settings(config: LoaderConfig) -> dict[str, Any]:
    threads = config.threads or default_threads()
    return {**config.model_dump(mode="json", exclude={"shards", "threads"}), "threads": threads}


def machine(device_id: int | None) -> dict[str, Any]:
    """What a figure was measured on."""
    import torch

    return {
        "device": "cpu" if device_id is None else torch.cuda.get_device_name(device_id),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "dali": version("nvidia-dali-cuda120"),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    place, config = result["machine"], result["config"]
    lines = [
        f"{place['device']}, {place['cpus']} CPUs, batch {config['batch_size']}, "
        f"{config['threads']} threads, DALI {place['dali']}, {place['date']}",
        "",
        "| stage | images/s | 95 % | ÷ decode | ÷ plain |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        rate = row["images_per_s"]
        ratio = result["ratios"].get(f"{row['pipeline']}/{row['stage']}")
        over = f"{ratio['full_over_decode']:.2f} | {ratio['with_over_without']:.2f}" if ratio else " | "
        lines.append(
            f"| {row['stage']} | {rate['median']:.0f} | {rate['low']:.0f}-{rate['high']:.0f} | {over} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("out/bench.json"), help="result file (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="per round and stage (%(default)s)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="loader config, e.g. batch_size=128"
    )
    args = parser.parse_intermixed_args()
    if args.rounds < 1 or args.batches < 1:
        raise UserError(f"--rounds={args.rounds} --batches={args.batches}: both must be at least 1")
    values = override({"shards": str(args.shards), "batch_size": 64}, args.overrides)
    result = measure(values, args.rounds, args.batches)
    write_text(args.json, json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(f"\n{args.json}")


if __name__ == "__main__":
    run(main)
