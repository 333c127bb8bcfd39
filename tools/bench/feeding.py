"""Does the loader keep a model fed: a recipe's steps with its loader over steps with one batch held.

`train.speed` measures it, as a program: tools import nothing of `train`. To measure several GPUs, run it with
torchrun.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dali_bgaug.errors import UserError


def measure(values: dict[str, Any], config: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Run `train.speed` with a recipe on the benchmark's shards and loader settings."""
    words = [f"data.{name}={value}" for name, value in _flat(values)]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        path = Path(folder) / "speed.json"
        command = ["-m", "train.speed", f"--config={config}", f"--rounds={rounds}", f"--steps={steps}"]
        command.append(f"--json={path}")
        if subprocess.run([sys.executable, *command, *words], check=False).returncode:
            raise UserError(f"--train={config}: `python -m train.speed` failed; the output above says why")
        return json.loads(path.read_text(encoding="utf-8"))


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as dotted names."""
    found = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return found
