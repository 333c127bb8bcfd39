"""Writing checkpoints in the background: a copy is taken between steps, a thread writes it.

writer.wait()                          # at most one is being written
copy = host_copy(state)                # training stands still so long
writer.start(lambda: write(copy), LogLine(step=…))
…
for line in writer.lines(): …          # of what was written meanwhile; raises what went wrong
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from dali_bgaug.workers import Workers
from train.records import LogLine

State = TypeVar("State")


@torch.no_grad()
def host_copy(state: State) -> State:
    """A copy in host memory of a tensor, or of nested dicts, lists and tuples of tensors and plain values.

    Copies lie in memory as the tensors do. Those of a GPU are pinned, and still under way in its current
    stream when this returns: synchronise it before they are read.
    """
    if isinstance(state, torch.Tensor):
        copy = torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return copy.copy_(state, non_blocking=True)
    if isinstance(state, dict):
        return {key: host_copy(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(host_copy(value) for value in state)
    return state


def bytes_of(state: Any) -> int:
    """The bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(bytes_of, values))


class CheckpointWriter:
    """A thread that writes checkpoints, one at a time; the process does not end before it is done."""

    def __init__(self) -> None:
        self._thread = Workers(1, "checkpoint")
        self._under_way: Future[LogLine] | None = None
        self._lines: list[LogLine] = []

    def wait(self) -> float:
        """Wait until nothing is being written; returns the seconds that took, and raises what went wrong."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return 0.0
        waiting, start = not under_way.done(), time.perf_counter()
        self._lines.append(under_way.result())
        return time.perf_counter() - start if waiting else 0.0

    def start(self, write: Callable[[], None], line: LogLine) -> None:
        """Have `write` called; the one before must be done (`wait`).

        line: what to log of it, but for the seconds it takes.
        """
        self._under_way = self._thread.submit(_timed, write, line)

    def lines(self) -> list[LogLine]:
        """Log lines of what was written since the last call; raises what went wrong."""
        if self._under_way is not None and self._under_way.done():
            self.wait()
        lines, self._lines = self._lines, []
        return lines


def _timed(write: Callable[[], None], line: LogLine) -> LogLine:
    start = time.perf_counter()
    write()
    return line.model_copy(update={"checkpoint_write_s": round(time.perf_counter() - start, 3)})
