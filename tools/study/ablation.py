"""The rows of a table of the paper as runs: pre-trains, evaluates, and writes the table beside the paper's.

    python -m tools.ablation configs/ablations/NAME.yaml --shards SHARDS --test VAL [key=value …]
    python -m tools.ablation configs/ablations/NAME.yaml … --part 3/12      # of an array of 12 jobs
    python -m tools.ablation configs/ablations/NAME.yaml … --no-start       # what is missing, or the page

The file names a recipe, and what each row has otherwise. `key=value` and `--recipe` change what the rows are
changes of: a row's own values stay. Every row is checked before the first run starts. What is finished is
kept: the same command goes on.

    OUT/ROW-SEED          recipe.yaml, the run, a result and its command for each measure, log.txt
    OUT/ablation.json     numbers of all runs, means and standard errors; ablation.md the page
"""

import argparse
import json
import os
import re
import shlex
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, model_validator
from tqdm import tqdm

from dali_bgaug.config import Options, merge, override, read_yaml, validate
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import digest, require_folder, write_json, write_text
from tools.bench.machine import machine
from tools.cli import ask, hold, parse_part, require, run, tool_parser
from tools.study.ablation_page import as_words, page, summary
from tools.study.measures import MEASURES, MeasureName, Sets, ordered, parse_measures
from tools.study.runs import Programs, evaluate_run, keep_values, read_result, train_run

ANOTHER = "choose another --out, or delete that folder"
RUN = Path("RUN")
"""A run's folder in the commands on record, so that they are the same where it is moved or linked to."""
Overrides = list[str] | dict[str, Any]
"""`key=value`, or a mapping as in a recipe."""


class Row(Options):
    """A row of the table."""

    name: str
    overrides: Overrides = Field(default=[])
    """What it has otherwise than the recipe."""
    paper: dict[str, float] = Field(default={})
    """The paper's numbers, in percent, by column."""
    source: str | None = None
    """Their table; by default the file's."""


class Ablation(Options):
    """A file of `configs/ablations/`."""

    title: str
    about: str
    """What is varied, and where the paper does."""
    recipe: str
    """What rows are changes of: a path from the file's folder."""
    overrides: Overrides = Field(default=[])
    """What all rows have."""
    source: str | None = None
    """The table of the paper's numbers, or where else they are said."""
    evaluate: list[MeasureName] = Field(default=["linear"], min_length=1)
    seeds: int = Field(default=3, ge=1)
    """Runs of each row; the paper's are of one each."""
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "Ablation":
        names = [_folder_name(row.name) for row in self.rows]
        if twice := [row.name for row, name in zip(self.rows, names, strict=True) if names.count(name) > 1]:
            raise ValueError(f"rows {', '.join(map(repr, twice))} would have one folder; rename some")
        for row in self.rows:
            if row.paper and not (row.source or self.source):
                raise ValueError(
                    f"row {row.name!r} has a number of the paper without a source; name its table"
                )
        return self


class Job(NamedTuple):
    """A run of a row."""

    row: str
    seed: int
    folder: Path


def recipes(ablation: Ablation, recipe: Path, words: list[str]) -> dict[str, dict[str, Any]]:
    """The recipe of each row, by its name: over the recipe `words`, over these what all rows have, and its
    own."""
    base = _over(override(read_yaml(recipe), words), ablation.overrides)
    return {row.name: _over(base, row.overrides) for row in ablation.rows}


def _over(values: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    return override(values, overrides) if isinstance(overrides, list) else merge(values, overrides)


def check(values: dict[str, dict[str, Any]], source: Path) -> None:
    """Refuse rows that are no recipe, all at once, and rows that are the same run.

    values: recipes by row.
    """
    found = ask("train.check", json.dumps(values), str(source))
    if faults := found["faults"]:
        raise UserError(f"{source}: rows that cannot be trained:\n{chr(10).join(faults.values())}")
    rows: dict[str, str] = {}
    for row, config in found["configs"].items():
        if (first := rows.setdefault(digest(config), row)) != row:
            raise UserError(f"{source}: rows {first!r} and {row!r} are the same run; leave one of them out")


def _folder_name(row: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", row).strip("_.")


def _perform(job: Job, measures: list[MeasureName], sets: Sets, programs: Programs, words: list[str]) -> None:
    """Train and evaluate one run, or what is left of it."""
    train_run(job.folder, programs, *words)
    for name in measures:
        evaluate_run(job.folder, programs, name, MEASURES[name].command(job.folder, sets), *words)


def _numbers(job: Job, measures: list[MeasureName]) -> dict[str, float | None] | None:
    """What was measured of a run, by column; None if something is missing."""
    numbers: dict[str, float | None] = {}
    for name in measures:
        if (found := read_result(job.folder, name)) is None:
            return None
        numbers |= MEASURES[name].numbers(found)
    return numbers


def perform(
    jobs: list[Job], measures: list[MeasureName], sets: Sets, at_once: int, ranks: int, on_gpu: bool
) -> None:
    """Do what is left of some runs, behind a progress bar; the first failure ends all, each saved."""
    threads = None if on_gpu else max(1, len(os.sched_getaffinity(0)) // (at_once * ranks))
    words = [] if threads is None else [f"data.threads={threads}"]
    left = [job for job in jobs if _numbers(job, measures) is None]
    done = len(jobs) - len(left)
    with (
        tqdm(total=len(jobs), initial=done, desc="runs", unit="run", dynamic_ncols=True) as bar,
        ThreadPoolExecutor(at_once) as pool,
        Programs(ranks, threads) as programs,
    ):
        futures = [pool.submit(_perform, job, measures, sets, programs, words) for job in left]
        for future in as_completed(futures):
            future.result()
            bar.update()


def collect(
    ablation: Ablation, jobs: list[Job], measures: list[MeasureName]
) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """The numbers of runs that are whole, and the seeds that are missing, by row."""
    rows, missing = [], {}
    for job in sorted(jobs, key=lambda job: [row.name for row in ablation.rows].index(job.row)):
        if (numbers := _numbers(job, measures)) is None:
            missing.setdefault(job.row, []).append(job.seed)
        else:
            rows.append({"name": job.row, "seed": job.seed, **numbers})
    return rows, missing


def main() -> None:
    args = _arguments()
    ablation = validate(Ablation, read_yaml(args.config), str(args.config))
    recipe = args.recipe or args.config.parent / ablation.recipe
    out = args.out or Path("out/ablations") / args.config.stem
    seeds = ablation.seeds if args.seeds is None else args.seeds
    require(seeds >= 1, f"--seeds={seeds}: give one at least")
    least = min(args.at_once, args.ranks)
    require(least >= 1, f"--at-once={args.at_once} --ranks={args.ranks}: give one at least")
    sets = _sets(args)
    measures = ordered(parse_measures(args.evaluate) if args.evaluate else ablation.evaluate, sets)
    part = parse_part(args.part)
    place = {"data": {"shards": str(sets.shards)}}
    values = {row: merge(own, place) for row, own in recipes(ablation, recipe, args.overrides).items()}
    check(values, args.config)
    jobs = [
        Job(row, seed, out.absolute() / f"{_folder_name(row)}-{seed}")
        for seed in range(seeds)
        for row in values
    ]
    for job in jobs:
        own = merge(values[job.row], {"seed": job.seed, "data": {"seed": job.seed}})
        keep_values(job.folder / "recipe.yaml", own, ANOTHER)
        for name in measures:
            command = {"command": MEASURES[name].command(RUN, sets)}
            keep_values(job.folder / f"{name}.yaml", command, f"delete it, {name}.json and the folder {name}")
    if not args.no_start:
        signal.signal(signal.SIGTERM, _interrupt)
        with hold(out / "ablation", part):
            perform(jobs[part.slice], measures, sets, args.at_once, args.ranks, torch.cuda.is_available())
    rows, missing = collect(ablation, jobs, measures)
    result = {
        **{"title": ablation.title, "about": ablation.about, "command": _command()},
        **{"recipe": os.path.normpath(recipe), "evaluate": measures, "seeds": seeds},
        "words": [*args.overrides, *as_words(ablation.overrides)],
        "machine": machine(0 if torch.cuda.is_available() else None),
        "rows": rows,
        "summary": summary([_line(row, ablation.source) for row in ablation.rows], rows),
    }
    print(text := page(result))
    if missing:
        names = [f"{row} (seed {', '.join(map(str, seeds))})" for row, seeds in missing.items()]
        print(f"no page yet, runs are missing: {some(names, 20)}")
        return
    path = args.json or out / "ablation.json"
    write_json(path, result)
    write_text(path.with_suffix(".md"), text)
    print(f"{path} and {path.with_suffix('.md')}")


def _line(row: Row, source: str | None) -> dict[str, Any]:
    return {**row.model_dump(mode="json"), "source": row.source or source}


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # launchers send several; programs are saving
    raise KeyboardInterrupt


def _command() -> str:
    """This command, of all parts."""
    words = shlex.join(sys.argv[1:])
    return f"python -m tools.ablation {re.sub(r' --(part[= ][^ ]+|no-start)', '', words)}"


def _sets(args: argparse.Namespace) -> Sets:
    paths = ("test", "challenge", "class_map", "shards_1percent", "shards_10percent")
    given = {name: path and path.absolute() for name in paths for path in [getattr(args, name)]}
    named = [each.partition("=") for each in args.set]
    if wrong := [each for each, (_, equals, _) in zip(args.set, named, strict=True) if not equals]:
        raise UserError(f"--set={wrong[0]}: must be NAME=DIR")
    places = [(name, require_folder(Path(place), f"--set {name}")) for name, _, place in named]
    robustness = tuple(f"{name}={place.absolute()}" for name, place in places)
    return Sets(shards=args.shards.absolute(), set=robustness, probe=tuple(args.probe), **given)


def _arguments() -> argparse.Namespace:
    parser = tool_parser("tools.ablation", __doc__)
    add, on_gpu = parser.add_argument, torch.cuda.is_available()
    add("config", type=Path, help="an ablation, e.g. configs/ablations/grey.yaml")
    add("--shards", type=Path, default=Path("out/shards"), help="packed shards to train on (%(default)s)")
    add("--test", type=Path, help="validation photos: shards, or a folder of class folders")
    add("--out", type=Path, help="folder of the runs (out/ablations/NAME)")
    add("--json", type=Path, help="result; a page beside it (OUT/ablation.json)")
    add("--seeds", type=int, help="runs of each row (the file's)")
    add("--recipe", type=Path, help="another recipe to change, e.g. configs/moco_v2_demo.yaml")
    add("--evaluate", help=f"what is measured, with commas: {', '.join(MEASURES)} (the file's)")
    what = "value of the recipes of probes and fine-tuning; any number of times"
    add("--probe", action="append", default=[], metavar="key=value", help=what)
    add("--challenge", type=Path, help="folder of background_gap: ImageNet-9's, or one like it")
    add("--class-map", type=Path, help="of it, as train.evaluate background-gap takes it")
    for percent in (1, 10):
        add(f"--shards-{percent}percent", type=Path, help=f"shards of finetune_{percent}percent")
    what = "a set of robustness; any number of times"
    add("--set", action="append", default=[], metavar="NAME=DIR", help=what)
    what = "the i-th of n machines' share of the runs (%(default)s)"
    add("--part", default="1/1", metavar="i/n", help=what)
    add("--no-start", action="store_true", help="start no run: write recipes, and the page if all is there")
    default = 1 if on_gpu else len(os.sched_getaffinity(0))
    add("--at-once", type=int, default=default, help="runs side by side (%(default)s)")
    default = max(1, torch.cuda.device_count())
    add("--ranks", type=int, default=default, help="processes of a run, a GPU each (%(default)s)")
    add("overrides", nargs="*", metavar="key=value", help="of the recipe, e.g. epochs=20 data.crop.size=64")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run(main)
