"""Real processes for tests of ranks and of kills: forked from a server that has `preload.py` behind it."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

SECONDS = 90
"""No test process may take longer."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.helpers.preload"])


def serve() -> None:
    """Start the server, before a pool of the project's starts it with fewer modules."""
    forkserver.ensure_running()


def fork(function: Callable[..., None], *args: Any) -> BaseProcess:
    """Start `function(*args)` in a process."""
    process = _context.Process(target=_begin, args=(function, args))
    process.start()
    return process


def _begin(function: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Processes of this one come from its server, too; Python would start another."""
    forkserver._forkserver.ensure_running = lambda: None
    function(*args)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    function: Callable[..., None], *args: Any, ranks: int = 1, errors: Path | None = None
) -> list[BaseProcess]:
    """Start `function(*args)` in a process a rank, with the environment that torchrun would give it.

    errors: a file that gets what they write to stderr.
    """
    port = free_port()
    return [fork(_enter, function, args, rank, ranks, port, errors) for rank in range(ranks)]


def _enter(
    function: Callable[..., None],
    args: tuple[Any, ...],
    rank: int,
    ranks: int,
    port: int,
    errors: Path | None,
) -> None:
    if errors:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    import torch

    torch.set_num_threads(1)  # sums are then made in one order
    function(*args)


def finish(processes: list[BaseProcess], seconds: float = SECONDS) -> list[int | None]:
    """Wait for all; their exit codes. Those that are not done in time are killed, and have code None."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def run(function: Callable[..., None], *args: Any, ranks: int = 1) -> None:
    """Start, wait, and require success."""
    assert finish(launch(function, *args, ranks=ranks)) == [0] * ranks


_HOLDER = """
import sys, time
from pathlib import Path
from dali_bgaug.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds a lock while the block runs, and is killed then."""
    words = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()
