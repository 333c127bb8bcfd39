"""A sweep of loader settings: one setting after another, its values timed in turn.

A setting that was swept keeps its best value while the next is swept: a few loaders in place of all
combinations. A value must be more than 2 % faster than an earlier one to be preferred to it, so give those
first that cost less memory.
"""

from typing import Any

from dali_bgaug.config import load_yaml
from dali_bgaug.errors import UserError
from pipelines.build import choose_device, default_threads
from tools.bench.measure import fullest_stage
from tools.bench.stages import time_loaders
from tools.bench.timing import Spread

SETTINGS = {
    "threads": "threads",
    "hw_decoder_load": "hw_decoder_load",
    "prefetch": "prefetch",
    "reader_depth": "reader_depth",
    "batch": "batch_size",
}
"""What can be swept, and its name in a config."""
MARGIN = 1.02


def is_setting(text: str) -> bool:
    """True of `name=value,value`, which is swept; one value alone is a config's."""
    name, _, values = text.partition("=")
    return name in SETTINGS and (name == "batch" or "," in values)


def measure(
    values: dict[str, Any], pipeline: str, words: list[str], rounds: int, batches: int
) -> dict[str, Any]:
    """Sweep a pipeline's fullest stage; returns what the JSON file holds.

    Args:
        values: a LoaderConfig's plain values.
        pipeline: whose views.
        words: `name=value,value,…`; by default the threads and `prefetch`, on a GPU `hw_decoder_load` too.
        rounds, batches: of each value.
    """
    device_id = choose_device(str(values.get("device", "auto")), None)
    grid = dict(_parse(word) for word in words or _usual(device_id is not None))
    skipped = ["hw_decoder_load"] if device_id is None and "hw_decoder_load" in grid else []
    grid = {name: candidates for name, candidates in grid.items() if name not in skipped}
    best: dict[str, Any] = {}
    rows = []
    for name, candidates in grid.items():
        rates = _rates(values | best, pipeline, SETTINGS[name], candidates, device_id, rounds, batches)
        winner = candidates[0]
        for value in candidates[1:]:
            if rates[value]["median"] > MARGIN * rates[winner]["median"]:
                winner = value
        best[SETTINGS[name]] = winner
        rows += [
            {"setting": name, "value": value, "images_per_s": rates[value], "best": value == winner}
            for value in candidates
        ]
    return {
        "stage": f"{pipeline}/{fullest_stage(values, pipeline)[0]}",
        "rounds": rounds,
        "rows": rows,
        "skipped": skipped,
        "config": [f"data.{name}={value}" for name, value in best.items()],
    }


def _rates(
    values: dict[str, Any],
    pipeline: str,
    name: str,
    candidates: list[Any],
    device_id: int | None,
    rounds: int,
    batches: int,
) -> dict[Any, Spread]:
    configs = {value: fullest_stage(values | {name: value}, pipeline)[1] for value in candidates}
    times = time_loaders(configs, device_id, rounds, batches, name)
    return {value: times.rate(value, config.batch_size) for value, config in configs.items()}


def _parse(word: str) -> tuple[str, list[Any]]:
    name, _, text = word.partition("=")
    found = [load_yaml(value, word) if value else None for value in text.split(",")]
    values = [float(value) if name == "hw_decoder_load" and _is_number(value) else value for value in found]
    if not all(_is_number(value) for value in values) or len(set(values)) < len(values):
        raise UserError(f"--sweep {word}: must be {name}= and different numbers, separated by commas")
    return name, values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _usual(on_gpu: bool) -> list[str]:
    most = default_threads()
    threads = [str(2**power) for power in range(most.bit_length()) if 2**power < most]
    usual = [f"threads={','.join([*threads, str(most)])}", "prefetch=1,2,3"]
    return [*usual, "hw_decoder_load=0,.5,.65,.8,.95"] if on_gpu else usual
