"""Fetching: a thread that reads batches of encoded samples ahead of the decoder."""

from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from dali_bgaug.dataset import Dataset
from dali_bgaug.decoding import DecodeOptions
from dali_bgaug.errors import UnusablePhotos, UserError
from dali_bgaug.samples import Encoded, Memory
from dali_bgaug.sampling import Draw, Sampler
from dali_bgaug.workers import Workers


class Fetched(NamedTuple):
    """A batch as it was read."""

    draw: Draw
    encoded: Encoded
    memory: Memory
    """Of its photos."""


class Fetcher:
    """The batches of a rank, read in order, some ahead of who takes them."""

    def __init__(
        self,
        data: Dataset,
        sampler: Sampler,
        components: list[str],
        *,
        epoch: int = 0,
        batch: int = 0,
        depth: int = 2,
        remember: int = 8,
    ) -> None:
        """Nothing is read before a batch is asked for.

        Args:
            data: what is read.
            sampler: which samples.
            components: of a sample.
            epoch, batch: the first one.
            depth: batches read ahead.
            remember: batches that `explain` looks into, those read last.
        """
        self._data, self._reader = data, data.reader(components)
        self._sampler = sampler
        self._draws, self._depth = sampler.draws(epoch, batch), depth
        self._thread = Workers(1, "reader")
        self._coming: deque[Future[Fetched]] = deque()
        self._free: deque[Memory] = deque()
        self._staged: int | None = None
        self._drawn: deque[np.ndarray] = deque(maxlen=remember)

    def take(self) -> Fetched:
        """The next batch; what went wrong in reading it is raised here. Give its memory back."""
        while len(self._coming) <= self._depth:
            self._coming.append(self._thread.submit(self._fetch))
        return self._coming.popleft().result()

    def give_back(self, memory: Memory) -> None:
        """Have the memory of a batch used again."""
        self._free.append(memory)

    def _fetch(self) -> Fetched:
        draw = next(self._draws)
        self._drawn.append(draw.rows)
        self._stage(draw)
        for piece in draw.coming:
            self._reader.ahead(piece)
        memory = self._free.popleft() if self._free else Memory()
        encoded = self._reader.read(draw.rows, memory)
        for shard in draw.done:
            self._reader.release(shard)
        return Fetched(draw, encoded, memory)

    def _stage(self, draw: Draw) -> None:
        """Say what comes: an epoch's shards as it begins, the next one's when a quarter of it is left."""
        last_quarter = len(self._sampler.epoch_shard) * 3 // 4
        if self._staged is None:
            self._staged = draw.epoch
            self._reader.stage(piece.shard for piece in self._sampler.pieces(draw.epoch))
        if draw.batch >= last_quarter and self._staged == draw.epoch and self._sampler.buffer:
            self._staged = draw.epoch + 1
            self._reader.stage(piece.shard for piece in self._sampler.pieces(draw.epoch + 1))

    def explain(self, options: DecodeOptions) -> UnusablePhotos | None:
        """An error of what is wrong with the data, or the samples read last; None if they are good."""
        try:
            self._data.check()
            for rows in tuple(self._drawn):
                if problems := self._data.damaged(rows, options):
                    lines = [problem.line for problem in problems]
                    return UnusablePhotos(self._data.explain(lines), dict(problems))
        except (UserError, OSError) as error:
            reasons = error.reasons if isinstance(error, UnusablePhotos) else {}
            return UnusablePhotos(self._data.explain([str(error)]), reasons)
        return None

    def interrupt(self) -> None:
        """See `SampleReader.interrupt`."""
        self._reader.interrupt()

    def close(self) -> None:
        """End the thread, and close what it reads."""
        self.interrupt()
        self._thread.close()
        self._reader.close()
        self._coming.clear()
