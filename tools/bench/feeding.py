"""Does the loader keep a model fed: a recipe's steps with its loader over steps with one batch held.

`train.speed` measures it, as a program: tools import nothing of `train`. To measure several GPUs, run it with
torchrun.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from tools.cli import start


def measure(shards: Path, settings: list[str], config: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Run `train.speed` with a recipe on these shards, with these settings of its loader (`key=value`)."""
    words = [f"data.shards={json.dumps(str(shards))}", *(f"data.{setting}" for setting in settings)]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        path = Path(folder) / "speed.json"
        options = [f"--config={config}", f"--rounds={rounds}", f"--steps={steps}", f"--json={path}"]
        start("train.speed", *options, *words)
        return json.loads(path.read_text(encoding="utf-8"))
