"""On a machine with a GPU: run its tests, then the benchmark. Without one: say so and end well.

python -m tools.gpu_check --shards out/demo/shards --json out/gpu.json
"""

import argparse
import subprocess
import sys
from pathlib import Path

from nvidia.dali import backend

from dali_bgaug.errors import UserError
from tools._cli import run

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("out/gpu.json"), help="result file (%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="loader config of the benchmark")
    args = parser.parse_intermixed_args()
    if backend.GetCUDADeviceCount() == 0:
        print("no GPU here: nothing to check")
        return
    python = [sys.executable, "-m"]
    steps = {
        "the GPU tests": [*python, "pytest", str(ROOT / "tests" / "gpu")],
        "the benchmark": [
            *(*python, "tools.bench", "--shards", str(args.shards), "--json", str(args.json)),
            *("device=gpu", "batch_size=256", *args.overrides),
        ],
    }
    for name, command in steps.items():
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise UserError(f"{name} failed; the output above says why")


if __name__ == "__main__":
    run(main)
