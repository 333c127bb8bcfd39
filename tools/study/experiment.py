"""Do background augmentations make features rely less on backgrounds? Pre-trains, probes, and sums up.

    python -m tools.experiment                            a demo set, made up
    python -m tools.experiment --data DIR                 photos of yours, masks by the detector fused
    python -m tools.experiment --data DIR --detector u2net --weights u2netp.onnx
    python -m tools.experiment --data DIR --masks TREE    masks made elsewhere

DIR has class folders, in `train` and `val` or to be split. MoCo-v2 is trained without background
augmentation, with BG_RM, BG_Random and BG_Swaps, BYOL and SwAV without and with BG_Random, all by
`configs/experiment/`. A linear classifier on each frozen backbone is then tested on other photos, in the
folders of `tools.background_challenge` made of them, attacked, and corrupted; and one fitted on few labels.
Runs go side by side; what is finished is kept, so the same command goes on after an interruption.

    OUT/data, …     what `experiment_data` makes
    OUT/runs/METHOD-BACKGROUND-SEED     recipe.yaml, the run, its probes: gap.json, few.json, robustness.json
"""

import argparse
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
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
from tools.study.experiment_data import Prepared, Source, demo_set, own_photos, prepare
from tools.study.experiment_page import draw, page, summary

CONFIGS = Path(__file__).parents[2] / "configs" / "experiment"
P = 0.3
"""Probability of another background, and of a matched negative."""
EPSILON = 2
"""Of the attack, in grey levels of 255 [ours]: less than the usual 8, for networks and views are small."""
UNTRAINED = "untrained"
PHOTOS = {"moco_v2": "photos.yaml", "byol": "photos_byol.yaml", "swav": "photos_swav.yaml"}
"""Recipes laid over a method's for photos of the user's."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of the experiment."""

    photos: int
    """Of the demo set, to train on."""
    held_out: int
    """Of the demo set, to test on."""
    recipes: dict[str, str]
    """Laid over a method's own: a file of `configs/experiment/`."""
    at_once: int
    """Runs side by side."""


SCALES = {
    "cpu": Scale(photos=3000, held_out=900, recipes={}, at_once=len(os.sched_getaffinity(0))),
    "gpu": Scale(
        photos=6000,
        held_out=1800,
        recipes={"moco_v2": "gpu.yaml", "byol": "gpu.yaml", "swav": "gpu_swav.yaml"},
        at_once=4,
    ),
}


class Condition(NamedTuple):
    """A method and its backgrounds."""

    method: str
    background: str

    def values(self, p: float) -> dict[str, Any]:
        """Values of the recipe's `data.background`."""
        own: dict[str, Any] = {"kind": self.background}
        own |= {} if self.background == "none" else {"p_pos": p}
        return own | ({"p_neg": p} if self.background == "swaps" else {})


CONDITIONS = (
    *(Condition("moco_v2", background) for background in ("none", "rm", "random", "swaps")),
    *(Condition(method, background) for method in ("byol", "swav") for background in ("none", "random")),
)


class Job(NamedTuple):
    """A run: what is trained from which seed, and where."""

    condition: Condition
    seed: int
    folder: Path

    @classmethod
    def of(cls, condition: Condition, seed: int, p: float, out: Path) -> "Job":
        """The job of a condition; runs of another p than usual lie beside the others."""
        other = "" if p == P or condition.background == "none" else f"-p{p:g}"
        return cls(condition, seed, out / "runs" / f"{condition.method}-{condition.background}-{seed}{other}")

    @property
    def networks(self) -> tuple[str, ...]:
        """What is probed: the network trained, "", and for the first condition that before training."""
        return ("", UNTRAINED) if self.condition == CONDITIONS[0] else ("",)


def measure(
    source: Source, scale: Scale, seeds: int, p: float, out: Path, workers: int, train: bool = True
) -> dict[str, Any]:
    """Prepare, train and test what is not there yet; the result as it goes into the JSON file.

    train: False takes the runs that are finished.

    Returns:
        `rows`, a dict for each run and for the untrained network of each seed: accuracy on every split,
        `accuracy` (on `original`), `gap`, with few labels, under attack, corrupted; `summary` of
        `experiment_page.summary`; `missing` runs; how it was made.
    """
    recipes = {method: _recipe(method, scale, "source" in source.record) for method, _ in CONDITIONS}
    prepared = prepare(source, recipes["moco_v2"]["data"]["crop"]["size"], out, workers)
    jobs = [Job.of(condition, seed, p, out) for seed in range(seeds) for condition in CONDITIONS]
    for job in jobs:
        own = {"seed": job.seed, "threads": 1, "background": job.condition.values(p)}
        own |= {"shards": str(prepared.shards.resolve())}
        _write_recipe(job.folder, merge(recipes[job.condition.method], {"seed": job.seed, "data": own}))
    if train:
        _make([job for job in jobs if not _is_done(job, prepared)], len(jobs), prepared, scale.at_once)
    done = [job for job in jobs if _is_done(job, prepared)]
    require(done, f"{out}: no run is finished yet; the same command without --page makes them")
    rows = [_row(job, network, prepared) for job in done for network in job.networks]
    rows.sort(key=lambda row: row["method"] == UNTRAINED)
    return {
        "seeds": seeds,
        "p": p,
        "epsilon": EPSILON,
        "machine": machine(0 if torch.cuda.is_available() else None),
        "at_once": scale.at_once,
        "photos": prepared.photos,
        **source.record,
        "recipes": recipes,
        "missing": [[*job.condition, job.seed] for job in jobs if job not in done],
        "rows": rows,
        "summary": summary(rows),
    }


def _make(jobs: list[Job], total: int, prepared: Prepared, at_once: int) -> None:
    """Train and probe, side by side, seed by seed."""
    bar = tqdm(total=total, initial=total - len(jobs), desc="runs", unit="run", dynamic_ncols=True)
    with ThreadPoolExecutor(at_once) as pool, bar:
        try:
            for future in as_completed([pool.submit(_run, job, prepared) for job in jobs]):
                future.result()
                bar.update()
        except BaseException:
            bar.write("a run did not end well; those under way are waited for")
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run(job: Job, prepared: Prepared) -> None:
    """Train and probe one network, and, of the first condition, probe it untrained."""
    began, timing = time.perf_counter(), job.folder / "seconds.json"
    fresh = not (job.folder / "checkpoints").exists()
    _train(job.folder)
    _probe(job.folder, "", prepared)
    if fresh:
        write_text(timing, json.dumps(round(time.perf_counter() - began)))
    for network in job.networks[1:]:
        _probe(job.folder, network, prepared)


def _train(folder: Path) -> None:
    """Train by the folder's recipe, or go on, unless it is done."""
    done = folder / "backbone.json"
    if not done.exists():
        words = [f"--config={folder / 'recipe.yaml'}", f"--out={folder}", "--auto-resume"]
        start("train", *words, threads=1, quiet=True)
    if not done.exists():
        raise UserError(f"{folder}: training was stopped; the same command goes on with it")


def _probes(folder: Path, network: str, prepared: Prepared) -> dict[Path, list[str]]:
    """The probes of a network, by the file of the result: their words."""
    sets = [f"--set=fgsm={prepared.original}", f"--epsilon={EPSILON}"]
    sets += [f"--set=imagenet-c={prepared.corrupted}"] if prepared.corrupted else []
    tests = {
        "gap": ["background-gap", f"--data={prepared.challenge}", f"--train={prepared.shards}"],
        "few": ["linear", "--fast", f"--data={prepared.few}", f"--test={prepared.original}"],
        "robustness": ["robustness", f"--train={prepared.shards}", *sets],
    }
    untrained = ["--untrained"] if network else []
    return {
        folder / "-".join(filter(None, (network, name))): words + untrained for name, words in tests.items()
    }


def _probe(folder: Path, network: str, prepared: Prepared) -> None:
    """Make the results of a network's probes that are not there."""
    for path, (protocol, *words) in _probes(folder, network, prepared).items():
        result = path.with_suffix(".json")
        if not _is_measured(result, prepared):
            words = [f"--checkpoint={folder}", f"--json={result}", *words]
            start("train.evaluate", protocol, *words, "threads=1", threads=1, quiet=True)


def _is_measured(result: Path, prepared: Prepared) -> bool:
    """Whether a probe's result is there, and of all sets."""
    if not result.exists():
        return False
    found = read_json(result, "delete it to evaluate again")
    return "sets" not in found or len(found["sets"]) == 1 + (prepared.corrupted is not None)


def _is_done(job: Job, prepared: Prepared) -> bool:
    probes = (path for network in job.networks for path in _probes(job.folder, network, prepared))
    return all(_is_measured(path.with_suffix(".json"), prepared) for path in probes)


def _row(job: Job, network: str, prepared: Prepared) -> dict[str, Any]:
    """What was measured of one network."""
    paths = [path.with_suffix(".json") for path in _probes(job.folder, network, prepared)]
    gap, few, robustness = (read_json(path, "delete it to evaluate again") for path in paths)
    splits = {split: values["accuracy"] for split, values in gap["splits"].items()}
    tests = {"few_labels": few["top1"], "fgsm": robustness["sets"]["fgsm"]["value"]}
    if prepared.corrupted:
        tests["corrupted"] = robustness["sets"]["imagenet-c"]["value"]
    measured = {"accuracy": splits["original"], "gap": gap["bg_gap"], **splits, **tests}
    if network:
        return {"method": network, "background": "none", "seed": job.seed, **measured}
    row = {**job.condition._asdict(), "seed": job.seed, **measured}
    log = read_json(job.folder / "backbone.json", f"delete {job.folder} to train again")
    row |= {"steps": log["step"], "loss": round(log["metrics"]["loss"], 4)}
    timing = job.folder / "seconds.json"
    if timing.exists():  # not of a run that was interrupted
        row["seconds"] = json.loads(timing.read_text(encoding="utf-8"))
    return row


def _write_recipe(folder: Path, values: dict[str, Any]) -> None:
    """Into a run's folder; a UserError where there is another already."""
    recipe, text = folder / "recipe.yaml", yaml.safe_dump(values)
    if recipe.exists() and recipe.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{recipe}: a run by another recipe than configs/experiment/ says now; choose another --out, or "
            "delete that folder"
        )
    write_text(recipe, text)


def _recipe(method: str, scale: Scale, own_photos: bool) -> dict[str, Any]:
    """A method's whole recipe, but for what differs between its runs."""
    names = [f"{method}.yaml", PHOTOS[method] if own_photos else None, scale.recipes.get(method)]
    values: dict[str, Any] = {}
    for name in filter(None, names):
        values = merge(values, read_yaml(CONFIGS / name))
    return values


def main() -> None:
    parser = tool_parser("tools.experiment", __doc__)
    add = parser.add_argument
    default = "gpu" if torch.cuda.is_available() else "cpu"
    add("--data", type=Path, help="class folders of photos, in train and val or not (default: a demo set)")
    add("--masks", type=Path, help="with --data: parallel tree of masks")
    add("--detector", help="with --data: of tools.masks (fused, or import with --masks)")
    add("--weights", type=Path, help="with --data: the detector's")
    add("--scale", choices=list(SCALES), default=default, help="(%(default)s on this machine)")
    add("--seeds", type=int, default=3, help="runs of each kind (%(default)s)")
    add("--p", type=float, default=P, help="probability of another background (%(default)s)")
    add("--out", type=Path, default=Path("out/experiment"), help="(%(default)s)")
    add("--json", type=Path, help="result; page and figure beside it (default OUT/experiment.json)")
    add("--page", action="store_true", help="train nothing: the page of the runs that are finished")
    add("--workers", type=int, default=default_workers(), help="processes that pack (all CPUs)")
    args = parser.parse_args()
    require(args.seeds >= 1, f"--seeds={args.seeds}: give one at least")
    require(0 < args.p <= 1, f"--p={args.p}: must be above 0 and at most 1")
    path = args.json or args.out / "experiment.json"
    scale = SCALES[args.scale]
    if args.data:
        source = own_photos(args.data, args.masks, args.detector, args.weights, args.out)
    else:
        for name in ("masks", "detector", "weights"):
            given = getattr(args, name)
            require(given is None, f"--{name}={given}: only with --data; the demo set's masks are exact")
        source = demo_set(scale.photos, scale.held_out, args.out, args.workers)
    found = measure(source, scale, args.seeds, args.p, args.out, args.workers, not args.page)
    result = {"scale": args.scale, "command": _command(args, parser), **found}
    text_path, figure = path.with_suffix(".md"), path.with_suffix(".png")
    write_json(path, result)
    draw(result, figure)
    write_text(text_path, text := page(result, figure.name))
    print(f"{text}\n{path}, {text_path} and {figure}")


def _command(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The command that makes the runs; of the user's files it has the names alone."""
    words = []
    for name in ("data", "masks", "detector", "weights"):
        if (value := getattr(args, name)) is not None:
            words += [f"--{name}", value.absolute().name if isinstance(value, Path) else value]
    words += ["--scale", args.scale, "--seeds", str(args.seeds)]
    words += [f"--p={args.p}"] if args.p != P else []
    words += ["--json", str(args.json or args.out / "experiment.json")]
    words += [] if args.out == parser.get_default("out") else ["--out", str(args.out)]
    return f"python -m tools.experiment {shlex.join(words)}"


if __name__ == "__main__":
    run(main)
