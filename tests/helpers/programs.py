"""Programs in processes that are forked with their imports done, where an interpreter's start is not tested.

They have what a program that is started has: words, an environment, standard streams, an interpreter's end
(threads, `atexit`, modules), an exit status.
"""

import ctypes
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.errors import UserError
from tests.helpers.processes import finish, fork

Ended = subprocess.CompletedProcess[str]


def run(module: str, *words: str, given: str = "") -> Ended:
    """`python -m module words…`. given: what it reads from stdin."""
    return _run(_run_module, module, words, given)


def run_text(text: str, *words: str) -> Ended:
    """`python -c text words…`."""
    return _run(_run_text, text, words, "")


def launch(module: str, *words: str) -> BaseProcess:
    """`python -m module words…`, begun; what it says is lost."""
    return fork(_enter, _run_module, module, words, dict(os.environ), [Path(os.devnull)] * 3)


def start(module: str, *words: str, threads: int | None = None, quiet: bool = False) -> str:
    """Stands in for `tools.cli.start`."""
    ended = run(module, *words)
    if ended.returncode:
        raise UserError(f"python -m {module} {' '.join(words)} failed:\n{ended.stderr}")
    if not quiet:
        print(ended.stdout, end="")
        print(ended.stderr, end="", file=sys.stderr)
    return ended.stdout


def ask(module: str, job: str, asker: str) -> dict[str, Any]:
    """Stands in for `tools.cli.ask`."""
    ended = run(module, given=job)
    if ended.returncode:
        raise UserError(f"{asker}: {ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def _run(kind: Callable[[str], None], program: str, words: tuple[str, ...], given: str) -> Ended:
    with tempfile.TemporaryDirectory() as place:
        streams = [Path(place) / name for name in ("in", "out", "errors")]
        streams[0].write_text(given)
        [code] = finish([fork(_enter, kind, program, words, dict(os.environ), streams)])
        assert code is not None, f"{program} takes too long"
        printed, errors = (path.read_text() for path in streams[1:])
    return Ended([program, *words], code, printed, errors)


def _run_module(program: str) -> None:
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def _run_text(program: str) -> None:
    exec(program, sys.modules["__main__"].__dict__)


def _enter(
    kind: Callable[[str], None],
    program: str,
    words: tuple[str, ...],
    environment: dict[str, str],
    streams: list[Path],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY), number)
    sys.stdin = os.fdopen(0)
    sys.argv = [program, *words]
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    code = 0
    try:
        kind(program)
    except SystemExit as error:
        code = error.code or 0
        if isinstance(code, str):
            code = (print(code, file=sys.stderr), 1)[1]
    except BaseException:
        traceback.print_exc()
        code = 1
    ctypes.pythonapi.Py_Exit(code)
