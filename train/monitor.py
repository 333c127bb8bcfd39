"""Monitoring of a run: log.jsonl, TensorBoard where it is installed, the progress bar, warnings."""

import contextlib
import errno
import itertools
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from pydantic import ValidationError
from tqdm import tqdm

from dali_bgaug.files import read_log, write_text
from dali_bgaug.loader import Loader
from train.records import LogLine

PATIENCE = 50
"""Logged losses in a row at the loss of chance before a run is warned of."""


class Monitor:
    """The monitor of a run, on rank 0 alone: log, TensorBoard, progress bar, warnings."""

    def __init__(self, out: Path, step: int, steps: int, chance_loss: float | None) -> None:
        """out: the run's folder; step: how many it has done, of `steps` (later lines are dropped)."""
        self._log = JsonLog(out / "log.jsonl", step)
        self._board = _tensorboard(out / "tensorboard", step)
        err = _Screen(sys.stderr)
        self._bar = tqdm(total=steps, initial=step, desc="train", unit="step", dynamic_ncols=True, file=err)
        self._chance, self._losses, self._warned = chance_loss, deque(maxlen=PATIENCE), False

    def advance(self) -> None:
        """A step is done."""
        self._bar.update()

    def report(self, line: LogLine) -> None:
        """Log a step: with `loss`, `images_per_s` and `data_wait`."""
        warning = self._warning(line.loss)
        self.note(line.model_copy(update={"warning": warning}))
        self._bar.set_postfix_str(
            f"loss {line.loss:.3f}, {line.images_per_s:.0f} images/s, {line.data_wait:.0%} waiting for data",
            refresh=False,
        )
        if warning:
            self.say(f"warning: {warning}")

    def note(self, line: LogLine) -> None:
        """Log what was measured after a step."""
        if problem := self._log.write(line):
            self.say(f"warning: {problem}")
        if self._board:
            for name, value in line.values().items():
                if name not in ("step", "warning", "ranks"):
                    self._board.add_scalar(name, value, line.step)

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        self._bar.clear()  # tqdm's own write does so only for screens that it knows
        print(text, file=_Screen(sys.stdout), flush=True)
        self._bar.refresh()

    def _warning(self, loss: float) -> str | None:
        """Once: the loss has not left the number that a network reaches which tells nothing apart."""
        self._losses.append(loss)
        if self._chance is None or self._warned or len(self._losses) < PATIENCE:
            return None
        if any(abs(loss - self._chance) > 0.005 * self._chance for loss in self._losses):
            return None
        self._warned = True
        return (
            f"the loss has been {self._chance:.3f} for {PATIENCE} log lines, that of chance: nothing is "
            "being learnt (collapse, or a learning rate that is too high or too low)"
        )

    def close(self) -> None:
        """Close the bar and TensorBoard's file."""
        self._bar.close()
        if self._board:
            self._board.close()


class _Screen:
    """A stream to a terminal that may be gone: what it does not take is lost, not the run."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, if somebody reads it."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or never there
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, likewise."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tensorboard(folder: Path, step: int) -> Any:
    """A TensorBoard writer, or None where it is not installed (`pip install tensorboard`)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def read_lines(path: Path) -> tuple[list[LogLine], list[int]]:
    """The lines of a log, and the numbers, from 1, of those that are damaged or no LogLine."""
    whole, damaged = read_log(path)
    lines, wrong = [], []
    numbers = (number for number in itertools.count(1) if number not in damaged)
    for number, values in zip(numbers, whole):
        try:
            lines.append(LogLine.model_validate(values))
        except ValidationError:
            wrong.append(number)
    return lines, sorted(damaged + wrong)


class JsonLog:
    """A log that a full disk delays; a resumed run first drops the lines after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        """path: the file; step: how many steps the run has done (lines of later ones are dropped)."""
        lines, damaged = read_lines(path) if step else ([], [])
        if damaged:
            kept = path.with_name(f"{path.name}.damaged-{step}")
            shutil.copyfile(path, kept)
            print(
                f"{path}: left out lines {damaged}, which are damaged; as it was it is {kept}",
                file=sys.stderr,
            )
        write_text(path, "".join(line.text() for line in lines if line.step <= step))
        self._path, self._unwritten = path, ""

    def write(self, line: LogLine) -> str | None:
        """Add a line. What cannot be written (a full disk) is kept for the next time; says so once."""
        known = bool(self._unwritten)
        self._unwritten += line.text()
        data = self._unwritten.encode()
        try:
            with self._path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if file.write(data) < len(data):  # half a line
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if known:
                return None
            return f"{self._path}: cannot be written ({error.strerror}); training goes on, and tries again"
        self._unwritten = ""
        return None


class Reading(NamedTuple):
    """Rates of one process since the last reading of its clock."""

    images_per_s: float
    """Of all ranks together."""
    data_wait: float
    """Share of the time that was spent waiting for the loader."""
    batch_s: float
    """Seconds of a batch apart from that."""


class Clock:
    """Images per second of all ranks, and how long this process waits for the loader, since the last reading.

    On a GPU the share is an upper bound: the process runs ahead of the GPU, and may wait while that is busy.
    """

    def __init__(self, loader: Loader, world_size: int) -> None:
        self._loader, self._images = loader, loader.batch_size * world_size
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self._start, self._waited, self._count = time.perf_counter(), 0.0, 0

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """The rest of the loader's epoch, timing how long each batch is waited for."""
        iterator = iter(self._loader)
        while True:
            before = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            self._count += 1
            yield batch

    def read(self) -> Reading:
        """What there was since the last reading."""
        seconds = time.perf_counter() - self._start
        working = (seconds - self._waited) / max(self._count, 1)
        result = Reading(self._count * self._images / seconds, self._waited / seconds, working)
        self.restart()
        return result
