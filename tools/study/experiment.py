"""Do background augmentations make features rely less on backgrounds? Pre-trains, probes, and sums up.

    python -m tools.experiment [--scale cpu|gpu] [--seeds 3] [--out out/experiment] [--json FILE]

On a demo set whose backgrounds go with the class in three photos of five, MoCo-v2 is trained without
background augmentation, with BG_RM, BG_Random and BG_Swaps, BYOL and SwAV without and with BG_Random, all by
`configs/experiment/`. A linear classifier on each frozen backbone is then tested on photos like those of
training, and in the folders of `tools.background_challenge` made of them. Runs go side by side; what is
finished is kept, so the same command goes on after an interruption.

    OUT/data, OUT/held_out      demo sets, of two seeds; packed
    OUT/challenge               the held-out photos with other backgrounds
    OUT/runs/METHOD-BACKGROUND-SEED     recipe.yaml, the run, gap.json
"""

import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from tqdm import tqdm

from dali_bgaug.config import merge, read_yaml
from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_json, write_text
from tools.bench.machine import machine
from tools.cli import default_workers, require, run, start, tool_parser
from tools.study.experiment_page import draw, page, summary
from tools.study.splits import pack_split
from tools.synthetic.background_challenge import make_challenge
from tools.synthetic.demo_data import DemoSettings, write_demo_set

CONFIGS = Path(__file__).parents[2] / "configs" / "experiment"
P = 0.3
"""Probability of another background, and of a matched negative."""
UNTRAINED = "untrained"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of the experiment."""

    photos: int
    """To train on."""
    held_out: int
    """To test on."""
    side: int
    """Short side of the challenge's images."""
    recipes: dict[str, str]
    """What recipes of a method extend besides their own: a file of `configs/experiment/`."""
    at_once: int
    """Runs side by side."""


SCALES = {
    "cpu": Scale(photos=3000, held_out=900, side=64, recipes={}, at_once=len(os.sched_getaffinity(0))),
    "gpu": Scale(
        photos=6000,
        held_out=1800,
        side=128,
        recipes={"moco_v2": "gpu.yaml", "byol": "gpu.yaml", "swav": "gpu_swav.yaml"},
        at_once=4,
    ),
}


class Condition(NamedTuple):
    """A method and its backgrounds."""

    method: str
    background: str

    @property
    def values(self) -> dict[str, Any]:
        """Values of the recipe's `data.background`."""
        own = {"kind": self.background}
        own |= {} if self.background == "none" else {"p_pos": P}
        return own | ({"p_neg": P} if self.background == "swaps" else {})


CONDITIONS = (
    *(Condition("moco_v2", background) for background in ("none", "rm", "random", "swaps")),
    *(Condition(method, background) for method in ("byol", "swav") for background in ("none", "random")),
)


def measure(scale_name: str, seeds: int, out: Path, workers: int) -> dict[str, Any]:
    """Prepare, train and test what is not there yet; the result as it goes into the JSON file.

    Returns:
        `rows`, a dict for each run and for the untrained network of each seed: accuracy on every split,
        `accuracy` (on `original`) and `gap`; `summary` of `experiment_page.summary`; how it was made.
    """
    scale = SCALES[scale_name]
    shards, challenge = _prepare(scale, out, workers)
    jobs = [(condition, seed) for seed in range(seeds) for condition in CONDITIONS]
    for condition, seed in jobs:
        _write_recipe(_folder(out, condition, seed), _recipe(condition, seed, scale, shards))
    rows: dict[tuple[Condition, int], list[dict[str, Any]]] = {}
    bar = tqdm(total=len(jobs), desc="runs", unit="run", dynamic_ncols=True)
    with ThreadPoolExecutor(scale.at_once) as pool, bar:
        futures = {pool.submit(_run, *job, shards, challenge, out): job for job in jobs}
        try:
            for future in as_completed(futures):
                rows[futures[future]] = future.result()
                bar.update()
        except BaseException:
            bar.write("a run did not end well; those under way are waited for")
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    tested = read_json(challenge / "challenge.json", "delete it")["photos"]
    ordered = sorted((row for job in jobs for row in rows[job]), key=lambda row: row["method"] == UNTRAINED)
    return {
        "scale": scale_name,
        "seeds": seeds,
        "p": P,
        "machine": machine(0 if torch.cuda.is_available() else None),
        "at_once": scale.at_once,
        "photos": {"train": scale.photos, "test": tested},
        "settings": asdict(_settings(scale)[0]),
        "rows": ordered,
        "summary": summary(ordered),
    }


def _settings(scale: Scale) -> tuple[DemoSettings, DemoSettings]:
    """The sets to train on and to test on: equally distributed, other seeds."""
    common = {"material": 1.0, "correlation": 0.6, "test_photos": 9}
    sizes = (scale.photos, scale.held_out)
    return tuple(DemoSettings(photos=size, seed=seed, **common) for seed, size in enumerate(sizes, 1))


def _prepare(scale: Scale, out: Path, workers: int) -> tuple[Path, Path]:
    """The shards to train on, and the challenge to test on."""
    shards = []
    for name, settings in zip(("data", "held_out"), _settings(scale), strict=True):
        photos = out / name / "photos"
        write_demo_set(photos, settings, workers)
        shards.append(pack_split(photos / "train", photos / "masks" / "train", out / name, workers))
    make_challenge(shards[1], out / "challenge", side=scale.side, workers=workers)
    return shards[0], out / "challenge"


def _folder(out: Path, condition: Condition, seed: int) -> Path:
    return out / "runs" / f"{condition.method}-{condition.background}-{seed}"


def _run(condition: Condition, seed: int, shards: Path, challenge: Path, out: Path) -> list[dict[str, Any]]:
    """One run's row; that of the first condition is followed by one of its network untrained."""
    folder = _folder(out, condition, seed)
    began, timing = time.perf_counter(), folder / "seconds.json"
    fresh = not (folder / "checkpoints").exists()
    _train(folder)
    row = {**condition._asdict(), "seed": seed, **_probe(folder, "gap", shards, challenge)}
    if fresh:
        write_text(timing, json.dumps(round(time.perf_counter() - began)))
    log = read_json(folder / "backbone.json", f"delete {folder} to train again")
    row |= {"steps": log["step"], "loss": round(log["metrics"]["loss"], 4)}
    if timing.exists():  # not of a run that was interrupted
        row["seconds"] = json.loads(timing.read_text(encoding="utf-8"))
    if condition != CONDITIONS[0]:
        return [row]
    baseline = {"method": UNTRAINED, "background": "none", "seed": seed}
    return [row, baseline | _probe(folder, UNTRAINED, shards, challenge)]


def _probe(folder: Path, name: str, shards: Path, challenge: Path) -> dict[str, Any]:
    """Accuracy on every split, `accuracy` and `gap` of a run's backbone, or of its network untrained."""
    path = folder / f"{name}.json"
    if not path.exists():
        words = [f"--checkpoint={folder}", f"--data={challenge}", f"--train={shards}", f"--json={path}"]
        words += ["--untrained"] if name == UNTRAINED else []
        start("train.evaluate", "background-gap", *words, "threads=1", threads=1, quiet=True)
    found = read_json(path, "delete it to evaluate again")
    splits = {split: values["accuracy"] for split, values in found["splits"].items()}
    return {"accuracy": splits["original"], "gap": found["bg_gap"], **splits}


def _train(folder: Path) -> None:
    """Train by the folder's recipe, or go on, unless it is done."""
    done = folder / "backbone.json"
    if not done.exists():
        words = [f"--config={folder / 'recipe.yaml'}", f"--out={folder}", "--auto-resume"]
        start("train", *words, threads=1, quiet=True)
    if not done.exists():
        raise UserError(f"{folder}: training was stopped; the same command goes on with it")


def _write_recipe(folder: Path, values: dict[str, Any]) -> None:
    """Into a run's folder; a UserError where there is another already."""
    recipe, text = folder / "recipe.yaml", yaml.safe_dump(values)
    if recipe.exists() and recipe.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{recipe}: a run by another recipe than configs/experiment/ says now; choose another --out, or "
            "delete that folder"
        )
    write_text(recipe, text)


def _recipe(condition: Condition, seed: int, scale: Scale, shards: Path) -> dict[str, Any]:
    """A run's whole recipe."""
    values = read_yaml(CONFIGS / f"{condition.method}.yaml")
    if larger := scale.recipes.get(condition.method):
        values = merge(values, read_yaml(CONFIGS / larger))
    own = {"shards": str(shards.resolve()), "seed": seed, "threads": 1, "background": condition.values}
    return merge(values, {"seed": seed, "data": own})


def main() -> None:
    parser = tool_parser("tools.experiment", __doc__)
    add = parser.add_argument
    default = "gpu" if torch.cuda.is_available() else "cpu"
    add("--scale", choices=list(SCALES), default=default, help="(%(default)s on this machine)")
    add("--seeds", type=int, default=3, help="runs of each kind (%(default)s)")
    add("--out", type=Path, default=Path("out/experiment"), help="(%(default)s)")
    add("--json", type=Path, help="result; page and figure beside it (default OUT/experiment.json)")
    add("--workers", type=int, default=default_workers(), help="processes that pack (all CPUs)")
    args = parser.parse_args()
    require(args.seeds >= 1, f"--seeds={args.seeds}: give one at least")
    path = args.json or args.out / "experiment.json"
    result = measure(args.scale, args.seeds, args.out, args.workers)
    words = ["--scale", args.scale, "--seeds", str(args.seeds), "--json", str(path)]
    words += [] if args.out == parser.get_default("out") else ["--out", str(args.out)]
    result["command"] = f"python -m tools.experiment {shlex.join(words)}"
    text_path, figure = path.with_suffix(".md"), path.with_suffix(".png")
    write_json(path, result)
    draw(result, figure)
    write_text(text_path, text := page(result, figure.name))
    print(f"{text}\n{path}, {text_path} and {figure}")


if __name__ == "__main__":
    run(main)
