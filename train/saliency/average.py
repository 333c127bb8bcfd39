"""Moving average of a network's predictions, each refined by the dense random field: the next round's labels.

Refinement takes tens of milliseconds a photo on a CPU, so processes do it beside the training.
"""

import multiprocessing
import os
import signal
import zlib
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from dali_bgaug.crf import refine
from dali_bgaug.errors import UserError
from dali_bgaug.processes import signal_with_parent

AHEAD = 64
"""Predictions waiting for each worker."""


class MovingAverage(AbstractContextManager):
    """A moving average of refined predictions, [N, side, side], once an epoch: a <- d a + (1 - d) refined.

    It lies in two files, read from one and written to the other in turns: an epoch that is broken off leaves
    what it started from.
    """

    def __init__(self, photos: Path, folder: Path, decay: float, workers: int) -> None:
        """photos: array uint8 [N, side, side, 3]; folder: of the two files; workers: processes."""
        self._photos, self._decay, self._workers = photos, decay, workers
        self._shape = np.load(photos, mmap_mode="r").shape[:3]
        self._paths = [folder / f"average-{number}.npy" for number in (0, 1)]
        self._waiting: set[Future] = set()
        self._epoch = 0
        context = multiprocessing.get_context("spawn")  # forked threads of torch would hang
        self._pool = ProcessPoolExecutor(workers, context, _start, (os.getpid(),))

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def create(self, epoch: int) -> None:
        """Make room for an epoch's values; one process does it for all ranks."""
        path = self._paths[epoch % 2]
        path.unlink(missing_ok=True)
        np.lib.format.open_memmap(path, "w+", np.float16, self._shape)

    def begin(self, epoch: int) -> None:
        """Begin an epoch, counted from 0; the files must have been made."""
        self._epoch = epoch

    def add(self, rows: Sequence[int], probability: np.ndarray) -> None:
        """Give predictions of an epoch, float [n, side, side], of the photos `rows`; returns at once unless
        the workers are far behind."""
        before = self._paths[(self._epoch + 1) % 2] if self._epoch else None
        for row, one in zip(rows, probability, strict=True):
            if len(self._waiting) >= AHEAD * self._workers:
                self._collect(*wait(self._waiting, return_when=FIRST_COMPLETED))
            files = self._photos, before, self._paths[self._epoch % 2]
            self._waiting.add(self._pool.submit(_update, *files, row, one, self._decay))

    def finish(self) -> None:
        """Wait for this rank's photos of the epoch."""
        self._collect(*wait(self._waiting))

    def _collect(self, done: set[Future], waiting: set[Future]) -> None:
        self._waiting = waiting
        try:
            for future in done:
                future.result()
        except BrokenProcessPool:
            raise UserError(
                "a process that refines predictions was killed (out of memory?); run again with fewer "
                f"workers than {self._workers}: it goes on from the last epoch"
            ) from None

    def checksum(self, epoch: int) -> int:
        """CRC-32 of the values after an epoch; 0 if there are none."""
        path = self._paths[epoch % 2]
        return zlib.crc32(np.load(path, mmap_mode="r")) if path.is_file() else 0

    def remove(self) -> None:
        """Delete both files."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def mean(self, epochs: int) -> np.ndarray:
        """The average after so many epochs, as if it had not begun at 0: uint8 [N, side, side]."""
        values = np.load(self._paths[(epochs - 1) % 2], mmap_mode="r")
        weight = 1 - self._decay**epochs
        rounded = np.empty(self._shape, np.uint8)
        for row, value in enumerate(values):
            rounded[row] = (255 * value.astype(np.float32) / weight).round().clip(0, 255)
        return rounded


def _start(parent: int) -> None:
    """A worker dies with the process that started it, and leaves Ctrl-C to it."""
    signal_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        os._exit(1)


def _update(
    photos: Path, before: Path | None, after: Path, row: int, probability: np.ndarray, decay: float
) -> None:
    refined = refine(np.load(photos, mmap_mode="r")[row], probability.astype(np.float64))
    earlier = 0.0 if before is None else np.load(before, mmap_mode="r")[row].astype(np.float32)
    values = np.load(after, mmap_mode="r+")
    values[row] = decay * earlier + (1 - decay) * refined
