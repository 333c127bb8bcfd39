"""The main benchmark: every stage of every pipeline, the torchvision reference and opponents, interleaved.

read          samples from the shards, nothing decoded
decode        + every photo decoded once
plain         + a pipeline's views: crop, flip, jitter, grayscale, blur, normalise
bg_…          + foreground-aware crop boxes (fg_min .1) and backgrounds (p .2): rm, random, and for moco_v2
              swaps, with its negative
torchvision   the torchvision reference, doing the last of these with PIL, torchvision and a DataLoader that
              has as many workers as the pipeline has threads
dali, …       opponents, on moco_v2's plain views (`opponents.py`)
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from dali_bgaug.config import merge, validate
from dali_bgaug.errors import UserError
from dali_bgaug.shards import Manifest, TileKind, extensions, open_shards
from pipelines import LoaderConfig
from pipelines.build import choose_device, default_threads
from pipelines.config import METHODS, components
from tools.bench import opponents
from tools.bench.machine import machine
from tools.bench.stages import DaliStage, TorchvisionStage, our_stage
from tools.bench.timing import Rounds, Spread, Stage, interleave
from tools.cli import ask

PIPELINES = tuple(name for name in METHODS if name != "evaluation")  # which has no stages
SHARED = "-"
"""The pipeline of stages that are the same in all."""
YARDSTICK = "torchvision"


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    rounds: int = 9
    batches: int = 8
    """A round."""
    pipelines: Sequence[str] = ("moco_v2",)
    torchvision: bool = True
    opponents: Sequence[str] = ("dali", "webdataset")
    """Of moco_v2."""
    ffcv: Path | None = None
    """A Python that has FFCV."""
    scaling: bool = True
    """Whether the fullest stages also run with fewer threads."""
    limit_s: float = math.inf
    """No round begins later than so long after the first."""
    cold: bool = True
    """Whether each stage also starts in a process of its own, for its memory and its first batch."""


class Key(NamedTuple):
    """A stage."""

    pipeline: str
    stage: str
    threads: int


Stages = dict[Key, LoaderConfig]


def plain_config(values: dict[str, Any], pipeline: str, kind: str = "none") -> LoaderConfig:
    """A pipeline's loader with this background.

    Raises:
        UserError: the values say something of backgrounds or foregrounds themselves.
    """
    for name, option in (("background", "kind"), ("crop", "fg_min")):
        if option in values.get(name, {}):
            raise UserError(f"{name}.{option}: the benchmark's stages set it themselves; leave it out")
    fg_min = 0.0 if kind == "none" else 0.1
    stage = {"pipeline": pipeline, "background": {"kind": kind}, "crop": {"fg_min": fg_min}}
    return validate(LoaderConfig, merge(values, stage), f"the benchmark's options for {pipeline}")


def stage_configs(values: dict[str, Any], pipeline: str) -> dict[str, LoaderConfig]:
    """The stages of one pipeline, the fullest last."""
    kinds = ["none", "rm", "random", *(["swaps"] if pipeline == "moco_v2" else [])]
    return {
        "plain" if kind == "none" else f"bg_{kind}": plain_config(values, pipeline, kind) for kind in kinds
    }


def fullest_stage(values: dict[str, Any], pipeline: str) -> tuple[str, LoaderConfig]:
    """The last of a pipeline's stages, and its name."""
    return list(stage_configs(values, pipeline).items())[-1]


def all_stages(values: dict[str, Any], options: Options) -> tuple[Stages, Stages]:
    """Keys of all stages, and of the fullest ones with fewer threads."""
    stages: Stages = {}
    fewer: Stages = {}
    for pipeline in options.pipelines:
        configs = stage_configs(values, pipeline)
        *_, (name, fullest) = configs.items()
        threads = fullest.threads or default_threads()
        if not stages:
            plain = configs["plain"]
            stages |= {Key(SHARED, stage, threads): plain for stage in ("read", "decode")}
        stages |= {Key(pipeline, stage, threads): config for stage, config in configs.items()}
        if options.torchvision:
            stages[Key(pipeline, YARDSTICK, threads)] = fullest
        if pipeline == opponents.PIPELINE:
            wanted = [*options.opponents, *(["ffcv"] if options.ffcv else [])]
            stages |= {Key(pipeline, opponent, threads): configs["plain"] for opponent in wanted}
        if options.scaling:
            for count in (2**power for power in range(threads.bit_length())):
                if count < threads:
                    fewer[Key(pipeline, name, count)] = fullest.replaced(threads=count)
    return stages, fewer


def open_stage(
    key: Key, config: LoaderConfig, device_id: int | None, ffcv: Path | None, stack: contextlib.ExitStack
) -> Stage:
    """Build a stage; `stack` closes it."""
    device = torch.device("cpu") if device_id is None else torch.device("cuda", device_id)
    if key.stage == YARDSTICK:
        return stack.enter_context(TorchvisionStage(config, key.threads, device))
    if key.stage == "webdataset":
        return stack.enter_context(opponents.WebDatasetStage(config, key.threads))
    if key.stage == "ffcv":
        beton = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")), "photos.beton")
        return stack.enter_context(opponents.FfcvStage(config, key.threads, ffcv, beton))
    if key.stage == "dali":
        manifest = open_shards(config.shards, config.verify, "--shards")
        return DaliStage(opponents.dali_pipeline(config, manifest, device_id), config.prefetch)
    return our_stage(key.stage, config, device_id, stack)


def measure(values: dict[str, Any], options: Options) -> dict[str, Any]:
    """Run the benchmark on a LoaderConfig's plain values; returns what the JSON file holds."""
    stages, fewer = all_stages(values, options)
    first = next(iter(stages.values()))
    device_id = choose_device(first.device, None)
    manifest = open_shards(first.shards, first.verify, "--shards")
    cold = _cold(stages, options) if options.cold else {}
    with contextlib.ExitStack() as stack:
        built: dict[Key, Stage] = {}
        everything, forked = stages | fewer, (YARDSTICK, "webdataset", "ffcv")
        # Workers are forked with the first batch: before there are threads of DALI that may hold a lock.
        order = sorted(everything, key=lambda key: key.stage not in forked)
        for key in tqdm(order, desc="warm", unit="stage"):
            built[key] = open_stage(key, everything[key], device_id, options.ffcv, stack)
            built[key].run(1 if key.stage in forked else 4)
        built = {key: built[key] for key in everything}
        rounds = interleave(built, options.rounds, options.batches, limit_s=options.limit_s)
    sizes = component_sizes(first.shards, manifest)
    rows = {key: _row(key, config, rounds, sizes, manifest.tiles) for key, config in everything.items()}
    scaled = {key[:2] for key in fewer}
    ratios = _ratios(stages, fewer, rounds)
    return place(values) | {
        "rounds": rounds.count,
        "batches": options.batches,
        "config": {pipeline: _settings(fullest_stage(values, pipeline)[1]) for pipeline in options.pipelines},
        "rows": [rows[key] | cold.get(key, {}) for key in stages],
        "scaling": [rows[key] for key in (*fewer, *(key for key in stages if key[:2] in scaled))],
        "ratios": {at: {name: one["median"] for name, one in found.items()} for at, found in ratios.items()},
        "ratio_intervals": {
            stage: {name: [spread["low"], spread["high"]] for name, spread in found.items()}
            for stage, found in ratios.items()
        },
        "cannot": {key.stage: opponents.CANNOT[key.stage] for key in stages if key.stage in opponents.CANNOT},
    }


def _row(
    key: Key, config: LoaderConfig, rounds: Rounds, sizes: dict[str, float], tiles: TileKind
) -> dict[str, Any]:
    rate = rounds.rate(key, config.batch_size)
    views = 0
    if key.pipeline != SHARED:
        views = sum(view.count for view in config.views.values()) * (4 if key.pipeline == "rotnet" else 1)
        swaps = config.background.kind == "swaps" and key.stage not in opponents.CANNOT
        views += config.background.negatives if swaps else 0
    plain = key.pipeline == SHARED or key.stage in opponents.CANNOT
    size = sum(sizes[name] for name in (["jpg", "cls"] if plain else components(config, tiles)))
    return {
        **key._asdict(),
        "images_per_s": rate,
        "views_per_s": round(views * rate["median"], 1),
        "bytes_per_image": round(size),
        "mb_per_s": round(size * rate["median"] / 1e6, 2),
        "cpu_ms_per_image": float(f"{1000 * rounds.cpu_median(key) / config.batch_size:.4g}"),
    }


def _ratios(stages: Stages, fewer: Stages, rounds: Rounds) -> dict[str, dict[str, Spread]]:
    """Ratios of this run by pipeline and stage."""
    keys = {(key.pipeline, key.stage): key for key in stages}
    ratios: dict[str, dict[str, Spread]] = {}
    for (pipeline, stage), key in keys.items():
        if stage != "plain" and not stage.startswith("bg_"):
            continue
        over = {"full_over_decode": keys[SHARED, "decode"], "with_over_without": keys[pipeline, "plain"]}
        last = [name for its, name in keys if its == pipeline and name.startswith("bg_")][-1]
        if stage == last and (pipeline, YARDSTICK) in keys:
            over["over_torchvision"] = keys[pipeline, YARDSTICK]
        if stage == "plain":
            rivals = [name for name in opponents.CANNOT if (pipeline, name) in keys]
            over |= {f"over_{name}": keys[pipeline, name] for name in rivals}
        found = {name: rounds.ratio(key, other) for name, other in over.items()}
        slowest = Key(pipeline, stage, 1)
        if slowest in fewer:
            found[f"threads_{key.threads}_over_1"] = rounds.ratio(key, slowest)
        ratios[f"{pipeline}/{stage}"] = found
    return ratios


def _cold(stages: Stages, options: Options) -> dict[Key, dict[str, Any]]:
    """Each stage in a process of its own: `cold.py`."""
    found = {}
    for key, config in tqdm(stages.items(), desc="cold", unit="stage"):
        if key.stage == "ffcv":  # a process of its own anyway, that compiles for most of a minute
            continue
        job = {"key": list(key), "config": config.model_dump(mode="json"), "batches": options.batches}
        stage = f"{key.pipeline}/{key.stage} failed in a process of its own"
        found[key] = ask("tools.bench.cold", json.dumps(job), stage)
    return found


def component_sizes(folder: Path, manifest: Manifest, shards: int = 8) -> dict[str, float]:
    """Mean encoded bytes of each component, from the indices of the first shards."""
    totals, samples = dict.fromkeys(extensions(manifest.tiles), 0), 0
    for shard in manifest.shards[:shards]:
        for line in (folder / shard.index).read_text(encoding="utf-8").splitlines()[1:]:
            words = line.split(" ")
            samples += 1
            for name, size in zip(words[0::4], words[2::4], strict=True):
                totals[name] += int(size)
    return {name: total / samples for name, total in totals.items()}


def _settings(config: LoaderConfig) -> dict[str, Any]:
    threads = config.threads or default_threads()
    return {**config.model_dump(mode="json", exclude={"shards", "threads"}), "threads": threads}


def place(values: dict[str, Any]) -> dict[str, Any]:
    """Machine, software and data that a figure was measured on."""
    manifest = open_shards(Path(values["shards"]), False, "--shards")
    data = {"photos": manifest.samples, "mb": round(manifest.bytes / 1e6, 3), "shards": len(manifest.shards)}
    here = machine(choose_device(values.get("device", "auto"), None))
    return {"machine": {name: value for name, value in here.items() if name != "date"}, "data": data}
