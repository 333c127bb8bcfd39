"""Measure the loader.

    python -m tools.bench --shards out/demo/shards [--pipelines moco_v2,swav] [--json FILE] [key=value …]

Without a mode: images/s of each stage of each pipeline, of the torchvision reference and of other loaders,
all in one run, in turn (`measure.py` says which). A mode measures one thing more, and adds it to the JSON
file:

    --profile     what each step of a view costs
    --sweep       threads=1,2,4 prefetch=1,2 batch=64,256 hw_decoder_load=0,.5,.8: which is fastest
    --train       does the loader keep this recipe's model fed
    --startup     seconds and memory to the first batch of so many samples
    --memory      whether memory grows over so many batches

Beside the JSON file are a page (.md) and a figure (.png) of all that is in it.
"""

import argparse
import math
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dali_bgaug.config import override
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_json
from tools.bench import feeding, page, profile, startup, sweep
from tools.bench.measure import PIPELINES, Options, measure, place
from tools.cli import pick, run

SAMPLES = 1_281_167
RECIPE = Path("configs/moco_v2_demo.yaml")


def _parser() -> argparse.ArgumentParser:
    text, details = __doc__.split("\n", 1)
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tools.bench", description=text, epilog=details, formatter_class=raw)
    add = parser.add_argument
    add("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    add("--json", type=Path, default=Path("out/bench.json"), help="result file (%(default)s)")
    add("--pipelines", default="moco_v2", help=f"of {','.join(PIPELINES)} (%(default)s)")
    add("--rounds", type=int, default=9, help="(%(default)s)")
    add("--batches", type=int, default=8, help="per round and stage; with --train steps (%(default)s)")
    add("--minutes", type=float, default=math.inf, help="begin no round later than this (all rounds)")
    add("--no-torchvision", action="store_true", help="leave out the torchvision reference")
    add("--opponents", default="dali,webdataset", help="other loaders for moco_v2 (%(default)s; '' for none)")
    what = "a Python with FFCV, another opponent (docs/benchmark.md)"
    add("--ffcv", type=Path, metavar="PYTHON", help=what)
    add("--no-scaling", action="store_true", help="leave out fewer threads")
    add("--no-cold", action="store_true", help="leave out memory and first batch of each stage")
    mode = parser.add_mutually_exclusive_group().add_argument
    mode("--profile", action="store_true", help="mode: what each step of a view costs")
    mode("--sweep", action="store_true", help="mode: the fastest of name=value,value,… settings")
    what = f"mode: does the loader keep this recipe fed ({RECIPE})"
    mode("--train", type=Path, nargs="?", const=RECIPE, metavar="CONFIG", help=what)
    what = f"mode: start with a synthetic index of so many ({SAMPLES})"
    mode("--startup", type=int, nargs="?", const=SAMPLES, metavar="SAMPLES", help=what)
    mode("--memory", type=int, metavar="BATCHES", help="mode: watch memory over so many batches")
    add("overrides", nargs="*", metavar="key=value", help="loader config, e.g. batch_size=128")
    return parser


def main() -> None:
    args = _parser().parse_intermixed_args()
    if args.rounds < 1 or args.batches < 1:
        raise UserError(f"--rounds={args.rounds} --batches={args.batches}: both must be at least 1")
    pipelines = list(dict.fromkeys(args.pipelines.split(",")))
    if unknown := set(pipelines) - set(PIPELINES):
        raise UserError(f"--pipelines: {', '.join(sorted(unknown))}: there are {', '.join(PIPELINES)}")
    grid = [setting for setting in args.overrides if args.sweep and sweep.is_setting(setting)]
    settings = [setting for setting in args.overrides if setting not in grid]
    values = override({"shards": str(args.shards), "batch_size": 64}, settings)
    if "pipeline" in values:
        raise UserError(f"pipeline={values['pipeline']}: name pipelines with --pipelines")
    before = _beside(args.json, values)  # what stands in the way is said before it is measured
    args.json.parent.mkdir(parents=True, exist_ok=True)
    name, found = _mode(args, values, pipelines, grid)
    found |= {"command": page.command_line(sys.argv[1:]), "date": time.strftime("%Y-%m-%d")}
    result = before | ({name: found} if name else found)
    write_json(args.json, result)
    print(page.table({name: found} if name else found))
    print("", args.json, *page.write_page(result, args.json), sep="\n")


def _mode(
    args: argparse.Namespace, values: dict[str, Any], pipelines: list[str], grid: list[str]
) -> tuple[str | None, dict[str, Any]]:
    """Measure; returns the mode's name, None for the main benchmark, and what it found."""
    if args.profile:
        return "profile", profile.measure(values, pipelines[0], args.rounds, args.batches)
    if args.sweep:
        return "sweep", sweep.measure(values, pipelines[0], grid, args.rounds, args.batches)
    if args.train:
        return "train", feeding.measure(args.shards, args.overrides, args.train, args.rounds, args.batches)
    if args.startup is not None:
        return "startup", startup.measure(values, pipelines[0], args.startup)
    if args.memory is not None:
        return "memory", startup.watch_memory(values, pipelines[0], args.memory)
    rivals = [name for name in args.opponents.split(",") if name]
    if unknown := set(rivals) - {"dali", "webdataset"}:
        raise UserError(f"--opponents: {', '.join(sorted(unknown))}: there are dali, webdataset, and --ffcv")
    if "webdataset" in rivals and not find_spec("webdataset"):
        rivals.remove("webdataset")
        print("webdataset is left out: pip install -e '.[bench]' brings it", file=sys.stderr)
    left_out = {name: not getattr(args, f"no_{name}") for name in ("torchvision", "scaling", "cold")}
    options = pick(args, "rounds", "batches", "ffcv") | {"pipelines": pipelines, "opponents": rivals}
    return None, measure(values, Options(**options, **left_out, limit_s=60 * args.minutes))


def _beside(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The result that another is added to: what is there, or a new one.

    Raises:
        UserError: what is there is of another machine, other software or other data.
    """
    here = place(values)
    if not path.is_file():
        return here
    before = page.load(path)
    for what in here:
        for name, value in here[what].items():
            if before.get(what, {}).get(name) != value:
                raise UserError(
                    f"--json={path}: holds a result with {what}.{name}={before.get(what, {}).get(name)!r}, "
                    f"here it is {value!r}; give another file, or delete it"
                )
    return before


if __name__ == "__main__":
    run(main)
