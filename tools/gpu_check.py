"""On a machine with a GPU: run its tests, then the benchmark with its modes. Without one: say so, end well.

    python -m tools.gpu_check --shards out/demo/shards --json out/gpu.json

Needs this folder, shards, and the packages (PYTHONPATH will do): no network. What does not fit into --minutes
is left out, and said; the JSON file has what was measured till then, and how each step ended.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from nvidia.dali import backend

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.shards import read_manifest
from tools._cli import run

ROOT = Path(__file__).parents[1]
RECIPE = "configs/moco_v2_medium_swaps.yaml"


class Step(NamedTuple):
    """A program to run."""

    name: str
    words: list[str]
    least_s: float
    """Not begun if less time is left."""


def steps(shards: Path, result: Path, overrides: list[str], minutes: float) -> list[Step]:
    """What is run, the most important first."""
    bench = [
        "tools.bench",
        f"--shards={shards}",
        f"--json={result}",
        "device=gpu",
        "batch_size=256",
        *overrides,
    ]
    return [
        Step("tests", ["pytest", str(ROOT / "tests" / "gpu")], 0),
        Step("benchmark", [*bench, "--opponents=dali", f"--minutes={minutes / 4}"], 60),
        Step("sweep", [*bench, "--sweep", "--rounds=5"], 60),
        Step("training", [*bench, f"--train={RECIPE}", "--rounds=3", "--batches=20"], 60),
        Step("profile", [*bench, "--profile", "--rounds=5"], 30),
        Step("startup", [*bench, "--startup"], 30),
    ]


def check(shards: Path, result: Path, overrides: list[str], minutes: float) -> dict[str, str]:
    """Run the steps; returns how each ended."""
    start, ended = time.perf_counter(), {}
    for step in steps(shards, result, overrides, minutes):
        left = 60 * minutes - (time.perf_counter() - start)
        if left < step.least_s:
            ended[step.name] = "left out: no time"
            continue
        print(f"{step.name}: {left:.0f} s left", flush=True)
        status = _run(step.words, max(left, 1))
        how = {0: "passed", None: "stopped: no time"}
        ended[step.name] = how.get(status, f"failed: status {status}")
    return ended


def _run(words: list[str], limit_s: float) -> int | None:
    """Run a Python module; its status, or None if it was stopped, with all that it had started."""
    with subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, start_new_session=True) as child:
        try:
            return child.wait(limit_s)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("out/gpu.json"), help="result file (%(default)s)")
    parser.add_argument("--minutes", type=float, default=8, help="time for all of it (%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="loader config of the benchmark")
    args = parser.parse_intermixed_args()
    if backend.GetCUDADeviceCount() == 0:
        print("no GPU here: nothing to check")
        return
    shards, path = args.shards.resolve(), args.json.resolve()
    read_manifest(shards)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    ended = check(shards, path, args.overrides, args.minutes)
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps(result | {"check": ended}, indent=1) + "\n")
    print(*(f"{name}: {how}" for name, how in ended.items()), args.json, sep="\n")
    if bad := [name for name, how in ended.items() if how.startswith(("failed", "stopped"))]:
        raise UserError(f"{', '.join(bad)}: did not pass; the output above says why")


if __name__ == "__main__":
    run(main)
