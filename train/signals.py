"""Stop requests: Ctrl-C, and SIGTERM and SIGUSR1, as clusters send them before they take a machine away."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

from train.distributed import new_group, world_size

PATIENCE = 1.0
"""Seconds in which a second Ctrl-C is the first: torchrun passes on what the terminal has sent to all."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """A stop request to any rank; all ranks learn of it at the same step."""

    def __init__(self) -> None:
        self.name = ""
        """The signal this rank got, or empty."""
        self._group: dist.ProcessGroup | None = None
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def connect(self) -> None:
        """Join the other ranks; every rank must call this."""
        if world_size() > 1:
            # On the CPU, by itself: asking must not wait for a GPU, nor mix with DDP's gradients.
            self._group = new_group(backend="gloo")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals. Once one came, further ones are ignored until the process ends: launcher and
        scheduler often both send one; but a later Ctrl-C interrupts at once. In another thread than the main
        one, Python lets nothing be taken."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        first = 0.0

        def note(number: int, _: FrameType | None) -> None:
            nonlocal first
            if self.name and number == signal.SIGINT and time.monotonic() > first + PATIENCE:
                raise KeyboardInterrupt
            if not self.name:
                self.name, first = signal.Signals(number).name, time.monotonic()

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                ignored = self.name and number != signal.SIGINT
                signal.signal(number, signal.SIG_IGN if ignored else handler)

    def ask(self) -> None:
        """Ask all ranks whether to stop; the answer comes while they work. Every rank must call this."""
        self._flag.fill_(bool(self.name))
        if self._group is not None:
            self._work = dist.all_reduce(self._flag, dist.ReduceOp.MAX, self._group, async_op=True)

    def answer(self) -> bool:
        """The answer to `ask`, the same on every rank."""
        if self._work is not None:
            self._work.wait()
        return bool(self._flag.item())
