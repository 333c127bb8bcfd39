"""Runs of a study: folders with the recipe of a training, what was trained by it, and what evaluation found.

What is finished is kept, by the recipe and the command it was made with; other ones are refused.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from dali_bgaug.config import read_yaml
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import read_json, write_text
from dali_bgaug.processes import following

LOG = "log.txt"
"""In a run's folder: what its programs have said."""
_SAID = 2000


class Programs(AbstractContextManager["Programs"]):
    """Programs that threads of a study have started; whose block ends, they are asked to end.

    A training saves first. Should this process be killed, they get the same signal from the kernel.
    """

    def __init__(self, ranks: int = 1, threads: int | None = None) -> None:
        """ranks: processes of a program, by torchrun if there are several. threads: that each computes in;
        None leaves it the choice."""
        self._launcher: list[str] = []
        if ranks > 1:
            self._launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
        self._environment = {**os.environ, "TQDM_MININTERVAL": "60"}  # bars go into a file
        if threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(threads)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ending = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ending = True
            running = list(self._running)
        for program in running:
            program.terminate()
        for program in running:
            program.wait()

    def run(self, log: Path, module: str, *words: str) -> None:
        """Run `python -m module words…` to its end; what it says comes after what the file holds.

        Raises:
            UserError: it failed, or this block has ended.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = following([sys.executable, "-m", *self._launcher, module, *words])
        with log.open("ab") as file:
            begin = file.tell()
            with self._lock:
                if self._ending:
                    raise UserError(f"{log.parent}: stopped; the same command goes on from there")
                program = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self._environment
                )
                self._running.add(program)
            status = program.wait()
            with self._lock:
                self._running.discard(program)
        if status:
            said = log.read_bytes()[begin:].decode("utf-8", "replace").strip()[-_SAID:]
            raise UserError(f"{shlex.join(['python', '-m', module, *words])} failed ({log}):\n{said}")


def keep_values(path: Path, values: dict[str, Any], remedy: str) -> None:
    """Write what a part of a run is made with as YAML, once.

    Raises:
        UserError: other values are there; it names the keys, and says the remedy.
    """
    values = json.loads(json.dumps(values))  # plain numbers and text
    if path.exists():
        old, new = _leaves(read_yaml(path)), _leaves(values)
        changed = [key for key in {**old, **new} if old.get(key, ...) != new.get(key, ...)]
        if changed:
            said = [f"{key} was {_shown(old, key)}, now it is {_shown(new, key)}" for key in changed]
            raise UserError(f"{path}: the run there was made otherwise: {some(said, 4, '; ')}; {remedy}")
    else:
        write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted names."""
    if not isinstance(values, dict):
        return {prefix[:-1]: values}
    return {
        key: leaf
        for name, value in values.items()
        for key, leaf in _leaves(value, f"{prefix}{name}.").items()
    }


def _shown(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not said"


def train_run(folder: Path, programs: Programs, *words: str) -> None:
    """Train by the folder's `recipe.yaml`, or go on, unless it is done.

    words: further `key=value` that change no batch, as `data.threads=1`.
    """
    done = folder / "backbone.json"
    if not done.exists():
        own = [f"--config={folder / 'recipe.yaml'}", f"--out={folder}", "--auto-resume"]
        programs.run(folder / LOG, "train", *own, *words)
    if not done.exists():
        raise UserError(f"{folder}: training was stopped; the same command goes on with it")


def evaluate_run(folder: Path, programs: Programs, name: str, command: list[str], *words: str) -> None:
    """Evaluate a trained run, unless `NAME.json` is there.

    Args:
        folder: of the run.
        programs: the study's.
        name: of the result.
        command: arguments of `train.evaluate`.
        words: further ones, that change no result.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        programs.run(folder / LOG, "train.evaluate", *command, f"--json={path}", *words)
    if not path.exists():
        raise UserError(f"{folder}: {name} was stopped; the same command goes on with it")


def read_result(folder: Path, name: str) -> dict[str, Any] | None:
    """The result of an evaluation; None if there is none yet."""
    path = folder / f"{name}.json"
    return read_json(path, "delete it to evaluate again") if path.exists() else None
