"""Moving average of a network's predictions, each refined by the dense random field: the next round's labels.

Refinement takes tens of milliseconds a photo on a CPU, so processes do it beside the training.
"""

import zlib
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import numpy as np

from dali_bgaug.crf import refine
from train.saliency.workers import create, written


class MovingAverage:
    """A moving average of refined predictions, [N, side, side], once an epoch: a <- d a + (1 - d) refined.

    It lies in two files, which take turns by the epochs of the whole training: an epoch reads one and writes
    the other, so one that is broken off leaves what it started from.
    """

    def __init__(
        self, photos: Path, folder: Path, decay: float, pool: ProcessPoolExecutor, ahead: int
    ) -> None:
        """photos: array uint8 [N, side, side, 3]; folder: of the two files; ahead: predictions that wait."""
        self._photos, self._folder, self._decay = photos, folder, decay
        self._shape = np.load(photos, mmap_mode="r").shape[:3]
        self._pool, self._ahead = pool, ahead
        self._waiting: set[Future] = set()

    def create(self, turn: int) -> None:
        """Make room for the values of epoch `turn`; one process does it for all ranks."""
        path = _path(self._folder, turn)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        create(path, self._shape, np.float16)

    def begin(self, turn: int, first: bool) -> None:
        """Begin epoch `turn` of the training. first: nothing is averaged yet."""
        self._before = None if first else _path(self._folder, turn - 1)
        self._after = _path(self._folder, turn)

    def add(self, rows: Sequence[int], probability: np.ndarray) -> None:
        """Give predictions of the epoch, float [n, side, side], of the photos `rows`; returns at once unless
        the workers are far behind."""
        for row, one in zip(rows, probability, strict=True):
            if len(self._waiting) >= self._ahead:
                self._collect(*wait(self._waiting, return_when=FIRST_COMPLETED))
            files = self._photos, self._before, self._after
            self._waiting.add(self._pool.submit(_update, *files, row, one, self._decay))

    def finish(self) -> None:
        """Wait for this rank's photos of the epoch."""
        self._collect(*wait(self._waiting))

    def _collect(self, done: set[Future], waiting: set[Future]) -> None:
        self._waiting = waiting
        for future in done:
            future.result()

    def write_mean(self, turn: int, epochs: int, path: Path) -> None:
        """Write the average after epoch `turn`, the last of `epochs`, as if it had not begun at 0: uint8
        [N, side, side]."""
        values = np.load(_path(self._folder, turn), mmap_mode="r")
        weight = 1 - self._decay**epochs
        with written(path, self._shape) as rounded:
            for row, value in enumerate(values):
                rounded[row] = (255 * value.astype(np.float32) / weight).round().clip(0, 255)


def checksum(folder: Path, turn: int) -> int:
    """CRC-32 of the values after epoch `turn`; 0 if there are none."""
    path = _path(folder, turn)
    return zlib.crc32(np.load(path, mmap_mode="r")) if path.is_file() else 0


def _path(folder: Path, turn: int) -> Path:
    return folder / f"{turn % 2}.npy"


def _update(
    photos: Path, before: Path | None, after: Path, row: int, probability: np.ndarray, decay: float
) -> None:
    refined = refine(np.load(photos, mmap_mode="r")[row], probability.astype(np.float64))
    earlier = 0.0 if before is None else np.load(before, mmap_mode="r")[row].astype(np.float32)
    np.load(after, mmap_mode="r+")[row] = decay * earlier + (1 - decay) * refined
