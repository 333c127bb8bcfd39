"""Sampling: which samples a rank reads in an epoch, and in which order.

    shards ──order of the epoch, cut by ranks──> pieces of shards ──shuffle buffer──> rows of batches

All of it is a function of (seed, epoch, rank) and the number of ranks: no state has to be kept to go on, and
a rank looks at its own shards only.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch


@dataclass(frozen=True)
class EpochShard:
    """One rank's part of an epoch: rank r of R reads samples [r N // R, (r + 1) N // R) of the epoch's order.

    They differ by one sample at most. In training every rank gives as many batches as the smallest fills, so
    none waits for another at the end of an epoch, and less than one global batch is left out, another part of
    the set each epoch. A complete epoch (evaluation) gives all samples, on every rank as many batches as the
    largest needs, with the padding marked. Of 103 samples on 2 ranks in batches of 10:

        rank   samples   batches given   left out this epoch   complete: batches, valid in the last
        0      51        5               1                     6, 1
        1      52        5               2                     6, 2
    """

    samples: int
    batch_size: int
    """Photos a batch of this rank."""
    rank: int
    world_size: int
    complete: bool = False
    """Whether every sample is given, and the last batch padded."""

    def __len__(self) -> int:
        """Batches given per epoch, the same on every rank."""
        if self.complete:
            largest = math.ceil(self.samples / self.world_size)
            return math.ceil(largest / self.batch_size)
        return self.samples // self.world_size // self.batch_size

    @property
    def span(self) -> tuple[int, int]:
        """First and last, exclusive, of this rank's samples in the epoch's order."""
        return (
            self.samples * self.rank // self.world_size,
            self.samples * (self.rank + 1) // self.world_size,
        )

    @property
    def own(self) -> int:
        """Samples of this rank."""
        first, last = self.span
        return last - first

    def valid(self, batch: int) -> torch.Tensor:
        """Rows of a batch that are samples and not padding: bool [batch_size]."""
        return torch.arange(self.batch_size) < self.own - batch * self.batch_size


@dataclass(frozen=True)
class Seeds:
    """Every random number of a rank: a function of (seed, rank, name, epoch, batch) and nothing else.

    Two ranks never share a stream, a new name does not change another's, and a resumed run needs no
    generator's state.
    """

    seed: int
    rank: int

    def generator(self, name: str, epoch: int, batch: int = 0) -> np.random.Generator:
        """The random numbers of one name in one batch."""
        return np.random.default_rng([self.seed, epoch, self.rank, zlib.crc32(name.encode()), batch])


class Piece(NamedTuple):
    """Rows `start` to `stop`, exclusive, of a shard."""

    shard: int
    start: int
    stop: int


class Draw(NamedTuple):
    """One batch's samples."""

    epoch: int
    batch: int
    """In the epoch."""
    rows: np.ndarray
    """int64 [N, 2]: shard and row; padding repeats the rank's last sample."""
    coming: list[Piece]
    """Samples that may be drawn from the next batch on, and could not before."""
    done: list[int]
    """Shards of which nothing is drawn any more in this epoch."""


@dataclass(frozen=True)
class Sampler:
    """The samples of one rank's batches."""

    sizes: Sequence[int]
    """Samples of every shard."""
    epoch_shard: EpochShard
    seed: int
    buffer: int
    """Samples of the epoch's order to draw the next one from; 0: they come in order."""

    def order(self, epoch: int) -> np.ndarray:
        """Shards in the order of an epoch, the same on every rank: int64 [shards]."""
        if not self.buffer:
            return np.arange(len(self.sizes))
        return Seeds(self.seed, 0).generator("shards", epoch).permutation(len(self.sizes))

    def pieces(self, epoch: int) -> list[Piece]:
        """This rank's part of an epoch, in order."""
        order = self.order(epoch)
        return cut([self.sizes[shard] for shard in order], order.tolist(), *self.epoch_shard.span)

    def draws(self, epoch: int, batch: int = 0) -> Iterator[Draw]:
        """The batches from one on, without end."""
        while True:
            yield from self._epoch(epoch, batch)
            epoch, batch = epoch + 1, 0

    def _epoch(self, epoch: int, first: int) -> Iterator[Draw]:
        """The batches of an epoch from the `first` on."""
        share, pieces = self.epoch_shard, self.pieces(epoch)
        size = share.batch_size
        shards = np.array([piece.shard for piece in pieces])
        left = np.array([piece.stop - piece.start for piece in pieces])
        ends = np.cumsum(left)
        shift = np.array([piece.stop for piece in pieces]) - ends
        generator = Seeds(self.seed, share.rank).generator("shuffle", epoch)
        order = shuffle(share.own, self.buffer, generator) if self.buffer else iter(range(share.own))
        seen = 0
        for batch in range(len(share)):
            positions = np.fromiter(islice(order, size), np.int64)
            which = np.searchsorted(ends, positions, "right")
            was_left = left > 0
            np.subtract.at(left, which, 1)
            if batch < first:
                continue
            reach = min(share.own, (batch + 1) * size + self.buffer)
            coming = _between(pieces, ends, seen, reach)
            if seen == 0 and batch:  # what was drawn before is not read again
                drawn = set(shards[~was_left].tolist())
                coming = [piece for piece in coming if piece.shard not in drawn]
            seen = reach
            rows = np.stack([shards[which], positions + shift[which]], axis=1)
            if len(rows) < size:
                padding = [[pieces[-1].shard, pieces[-1].stop - 1]] * (size - len(rows))
                rows = np.concatenate([rows, np.array(padding, np.int64)])
            done = was_left if batch == len(share) - 1 else was_left & (left == 0)
            yield Draw(epoch, batch, rows, coming, shards[done].tolist())


def cut(sizes: Sequence[int], shards: Sequence[int], first: int, last: int) -> list[Piece]:
    """The pieces that samples `first` to `last`, exclusive, of these shards, one after the other, lie in."""
    ends = np.cumsum(sizes, dtype=np.int64)
    return _between([Piece(shard, 0, size) for shard, size in zip(shards, sizes)], ends, first, last)


def _between(pieces: Sequence[Piece], ends: np.ndarray, first: int, last: int) -> list[Piece]:
    """The parts of pieces, which end at these places of a row, that lie from `first` to `last`."""
    found = []
    for number in range(int(np.searchsorted(ends, first, "right")), len(pieces)):
        shard, start, stop = pieces[number]
        begin = int(ends[number]) - (stop - start)
        if begin >= last:
            break
        part = Piece(shard, start + max(0, first - begin), start + min(stop - start, last - begin))
        if part.stop > part.start:
            found.append(part)
    return found


def shuffle(count: int, buffer: int, generator: np.random.Generator) -> Iterator[int]:
    """The numbers below `count`, each once, in an order of chance: the next is one of those not drawn yet of
    the first `buffer` more than have been drawn."""
    held = list(range(min(buffer, count)))
    for drawn in range(count):
        if drawn % _CHANCES == 0:
            chances = generator.random(min(_CHANCES, count - drawn)).tolist()
        slot = int(chances[drawn % _CHANCES] * len(held))
        yield held[slot]
        if drawn + buffer < count:
            held[slot] = drawn + buffer
        else:
            held[slot] = held[-1]
            held.pop()


_CHANCES = 1 << 16  # random numbers at a time: of 100 million samples they would fill a gigabyte
