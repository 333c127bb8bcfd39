"""With a GPU: check its kernels and tests, then the benchmark and its modes. Without one: say so, end well.

    python -m tools.gpu_check --shards out/demo/shards --json out/gpu.json

Needs this folder, shards, and the packages (PYTHONPATH will do): no network. Each step has a time limit of
its own; what does not fit into --minutes is left out, and said. After each step the JSON file has what was
measured till then, and how each step ended.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from nvidia.dali import backend

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_json
from dali_bgaug.shards import read_manifest
from tools.cli import run, tool_parser

ROOT = Path(__file__).parents[2]
RECIPE = "configs/moco_v2_medium_swaps.yaml"
LEAST_S = 15
"""A step is not begun if less time is left."""


class Step(NamedTuple):
    """A program to run."""

    name: str
    words: list[str]
    share: float
    """Of all the time, at most."""


def steps(shards: Path, result: Path, overrides: list[str], minutes: float) -> list[Step]:
    """The steps, the most important first."""
    bench = ["tools.bench", f"--shards={shards}", f"--json={result}"]
    bench += ["device=gpu", "batch_size=256", *overrides]
    stages = ["--no-cold", "--no-scaling", "--no-torchvision", "--opponents=", f"--minutes={minutes / 8}"]
    stages += ["--batches=25"]  # of some 16 ms; what a round's first and last batch wait for counts less
    swept = ["hw_decoder_load=.65,.8,.9", "prefetch=2,3"]
    pytest = ["pytest", "-v", f"-n={min(8, os.cpu_count() or 1)}"]  # kernels compile side by side
    tests, kernels = (ROOT / "tests" / "gpu" / name for name in ("", "test_renderer.py"))
    return [
        Step("kernels", [*pytest, str(kernels)], 0.3),
        Step("tests", [*pytest, str(tests), f"--ignore={kernels}"], 0.3),
        Step("benchmark", [*bench, *stages], 0.3),
        Step("profile", [*bench, "--profile", "--rounds=5", "--batches=4"], 0.2),
        Step("training", [*bench, f"--train={RECIPE}", "--rounds=3", "--batches=20"], 0.25),
        Step("sweep", [*bench, "--sweep", *swept, "--rounds=3", "--batches=4"], 0.25),
    ]


def check(shards: Path, result: Path, overrides: list[str], minutes: float) -> dict[str, str]:
    """Run the steps and keep in the result file how each ended; returns that."""
    start, ended = time.perf_counter(), {}
    for step in steps(shards, result, overrides, minutes):
        left = 60 * minutes - (time.perf_counter() - start)
        if left < LEAST_S:
            ended[step.name] = "left out: no time"
        else:
            limit = min(left, 60 * minutes * step.share)
            print(f"{step.name}: {left:.0f} s left, {limit:.0f} s at most", flush=True)
            status = _run(step.words, limit)
            how = {0: "passed", None: "stopped: no time"}
            ended[step.name] = how.get(status, f"failed: status {status}")
        write_json(result, read_json(result, "delete it and run again") | {"check": ended})
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
    parser = tool_parser("tools.gpu_check", __doc__)
    add = parser.add_argument
    add("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    add("--json", type=Path, default=Path("out/gpu.json"), help="result file (%(default)s)")
    add("--minutes", type=float, default=5, help="time for all of it (%(default)s)")
    add("overrides", nargs="*", metavar="key=value", help="loader config of the benchmark")
    args = parser.parse_intermixed_args()
    if backend.GetCUDADeviceCount() == 0:
        print("no GPU here: nothing to check")
        return
    shards, path = args.shards.resolve(), args.json.resolve()
    read_manifest(shards)
    path.parent.mkdir(parents=True, exist_ok=True)
    from tools.bench.measure import place  # and torch with it: seconds, which a host without a GPU is spared

    write_json(path, place({"shards": str(shards), "device": "gpu"}))  # the benchmark adds to it
    ended = check(shards, path, args.overrides, args.minutes)
    print(*(f"{name}: {how}" for name, how in ended.items()), args.json, sep="\n")
    if bad := [name for name, how in ended.items() if how.startswith(("failed", "stopped"))]:
        raise UserError(f"{', '.join(bad)}: did not pass; the output above says why")


if __name__ == "__main__":
    run(main)
