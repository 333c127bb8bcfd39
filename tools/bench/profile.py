"""The cost of each step of a view: the loader built step by step, all builds timed in turn.

The price of a step is what the loader with it takes longer than the loader before it, in time and in CPU
time.
"""

from typing import Any

from dali_bgaug.config import merge, validate
from pipelines import LoaderConfig
from pipelines.build import choose_device
from tools.bench.stages import time_loaders

_PHOTOMETRIC = {"jitter": "jitter_p", "grayscale": "grey_p", "blur": "blur_p", "solarize": "solarize_p"}


def steps(values: dict[str, Any], pipeline: str) -> dict[str, LoaderConfig]:
    """Configs by step, each with what was before; steps that change nothing of this pipeline are left out."""
    without, aware = dict.fromkeys(_PHOTOMETRIC.values(), 0.0), {"crop": {"fg_min": 0.1}}
    plain: dict[str, Any] = {"background": {"kind": "none"}, "crop": {"fg_min": 0.0}}
    plans = {"crop and normalise": plain | {"photometric": dict(without)}}
    for name, option in _PHOTOMETRIC.items():
        del without[option]  # the method's own value
        plans[name] = plain | {"photometric": dict(without)}
    plans["foreground-aware crop boxes"] = plain | aware
    plans["masks and a grey behind (rm)"] = aware | {"background": {"kind": "rm"}}
    donor = "none" if pipeline == "rotnet" else "crop"
    plans["tiles instead of grey (random)"] = aware | {"background": {"kind": "random", "donor": donor}}
    if pipeline != "rotnet":
        plans["the tiles' jitter and blur"] = aware | {"background": {"kind": "random"}}
    if pipeline == "moco_v2":
        plans["matched negatives (swaps)"] = aware | {"background": {"kind": "swaps"}}
    found: dict[str, LoaderConfig] = {}
    for name, plan in plans.items():
        options = merge(values, {"pipeline": pipeline, **plan})
        config = validate(LoaderConfig, options, f"the profile of {pipeline}")
        if config not in found.values():
            found[name] = config
    return found


def measure(values: dict[str, Any], pipeline: str, rounds: int, batches: int) -> dict[str, Any]:
    """Time every step of a pipeline; returns what the JSON file holds."""
    configs = steps(values, pipeline)
    first = next(iter(configs.values()))
    device_id = choose_device(first.device, None)
    configs = {"read": first, "decode": first} | configs
    times = time_loaders(configs, device_id, rounds, batches, "profile")
    rows, before = [], None
    size = first.batch_size
    for name in configs:
        cpu = times.cpu_median(name) - (times.cpu_median(before) if before else 0)
        row = {"step": name, "images_per_s": times.rate(name, size)}
        row |= {"adds_ms": times.adds(name, before, size), "adds_cpu_ms": round(1000 * cpu / size, 4)}
        rows.append(row)
        before = name
    total = sum(row["adds_ms"]["median"] for row in rows)
    for row in rows:
        row["share"] = round(row["adds_ms"]["median"] / total, 4)
    return {"pipeline": pipeline, "batch_size": size, "rounds": times.count, "rows": rows}
