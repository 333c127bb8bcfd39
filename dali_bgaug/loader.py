"""The loader: batches as an iterator of torch tensors, with epochs, exact resume, clean shutdown."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dali_bgaug.batches import BatchMaker, Producer
from dali_bgaug.errors import UnusablePhotos, UserError
from dali_bgaug.journal import Journal

STATE_VERSION = 5


@dataclass(frozen=True)
class EpochShard:
    """One rank's part of an epoch, as DALI's reader cuts it: rank r of R reads samples [r N // R, (r + 1) N
    // R).

    They differ by one sample at most and are padded to whole batches. In training every rank gives as many
    batches as the smallest fills, so none waits for another at the end of an epoch, and less than one
    global batch is left out. A complete epoch (evaluation) gives all batches, on every rank as many as the
    largest needs, with the padding marked. Of 103 samples on 2 ranks in batches of 10:

        rank   samples   batches read   given   left out this epoch   complete: valid in the last batch
        0      51        6              5       1                     1
        1      52        6              5       2                     2
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
        smallest = self.samples // self.world_size // self.batch_size
        return self.padded_batches if self.complete else smallest

    @property
    def own(self) -> int:
        """Samples of this rank."""
        return self.samples * (self.rank + 1) // self.world_size - self.samples * self.rank // self.world_size

    @property
    def padded_batches(self) -> int:
        """Batches the reader makes per epoch: the largest rank's, padded."""
        largest = -(-self.samples // self.world_size)
        return -(-largest // self.batch_size)

    def valid(self, batch: int) -> torch.Tensor:
        """Rows of a batch that are samples and not padding: bool [batch_size]."""
        return torch.arange(self.batch_size) < self.own - batch * self.batch_size


class Loader:
    """Batches of one rank: dicts of tensors.

    On the loader's device: the views, float [N, 3, H, W] in channels_last memory format; which of their
    backgrounds were replaced, `replaced` bool [N, views], and, with swaps, which negatives have their view's,
    `matched` bool [N, negatives]. On the CPU: `label` int64 [N], in a complete epoch `valid` bool
    [N]. Iterating gives one epoch, or the rest of it after `load_state_dict`; then the next. Use `close` or
    a `with` block to free threads and memory.
    """

    def __init__(
        self,
        build: Callable[[int, bytes | None], BatchMaker],
        epoch_shard: EpochShard,
        identity: dict[str, Any],
        journal: Journal,
        ahead: int,
    ) -> None:
        """Build what makes the batches.

        Args:
            build: does it, given the epoch it starts from and the reader's checkpoint or None.
            epoch_shard: this rank's part of an epoch.
            identity: what a state may only be loaded into if it is equal: data, config, device.
            journal: of the samples read, filled by the reader.
            ahead: finished batches kept ready.
        """
        self._build, self._epoch_shard, self._identity = build, epoch_shard, identity
        self._journal, self._ahead = journal, ahead
        self.epoch, self.batch = 0, 0
        self._producer: Producer | None = None
        self._process = os.getpid()
        _warn_of_fork()
        self._start(0, None)

    def _start(self, origin: int, checkpoint: bytes | None) -> None:
        """Begin with the epoch `origin`, at its beginning or at a checkpoint."""
        self.close()
        self._origin = origin
        maker = self._build(origin, checkpoint)
        self._checkpoint = checkpoint or maker.reader.checkpoint()
        self._producer = Producer(maker, self._ahead)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._epoch_shard)

    @property
    def batch_size(self) -> int:
        """Photos a batch of this rank."""
        return self._epoch_shard.batch_size

    @property
    def samples(self) -> int:
        """Photos of the whole set."""
        return self._epoch_shard.samples

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the current epoch not given yet; after its last one, those of the next."""
        if self.batch >= len(self):
            self._end_epoch()
        while self.batch < len(self):
            number = self.batch
            batch = self._next()
            if self._epoch_shard.complete:
                batch["valid"] = self._epoch_shard.valid(number)
            yield batch
        self._end_epoch()

    def _end_epoch(self) -> None:
        while self.batch < self._epoch_shard.padded_batches:  # partly padding, on some rank
            self._next()
        with self._all_or_closed():
            self.epoch, self.batch = self.epoch + 1, 0

    def _next(self) -> dict[str, torch.Tensor]:
        """The next batch, which counts as given. An interrupt while it is awaited changes nothing."""
        producer = self._open_producer()
        with self._all_or_closed():
            producer.request()
        try:
            producer.wait()
        except Exception as error:  # whatever it is, the pipeline is lost
            self._open_producer()  # or another thread has closed the loader
            self.close()
            place = (
                f"the loader failed in epoch {self.epoch}, batch {self.batch}, rank {self._epoch_shard.rank}"
            )
            if found := self._journal.explain():
                raise UnusablePhotos(f"{place}; {found}", found.reasons) from error
            raise RuntimeError(f"{place}; what it was reading is good") from error
        with self._all_or_closed():
            made = producer.take()
            self._checkpoint = made.checkpoint
            self.batch += 1
        return made.take()

    @contextmanager
    def _all_or_closed(self) -> Iterator[None]:
        """Close the loader if the block is interrupted (Ctrl-C, a handler of a signal): half of it done, it
        would give other batches than it counts."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _open_producer(self) -> Producer:
        if os.getpid() != self._process:
            raise RuntimeError(
                "this loader was made in another process, and its threads did not survive the fork; make it "
                "in the process that uses it, and start processes by multiprocessing.get_context('spawn')"
            )
        if self._producer is None:
            raise RuntimeError("this loader is closed")
        return self._producer

    def state_dict(self) -> dict[str, Any]:
        """State to resume from: numbers, text and a uint8 tensor. The batch last given counts as done."""
        self._open_producer()
        pipeline = torch.from_numpy(np.frombuffer(self._checkpoint, np.uint8).copy())
        return {
            "version": STATE_VERSION,
            "identity": dict(self._identity),
            "rank": self._epoch_shard.rank,
            "world_size": self._epoch_shard.world_size,
            "batches": len(self),
            "origin": self._origin,
            "epoch": self.epoch,
            "batch": self.batch,
            "pipeline": pipeline,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, in this process or another.

        With another number of ranks this is possible between epochs only: then any rank's state will do, and
        every rank begins the next epoch with a new epoch shard, shuffled anew. All ranks must load a state
        of the same moment.

        Raises:
            UserError: the state is of another data set, config or rank, or of another number of ranks in
                mid-epoch.
        """
        if state["version"] != STATE_VERSION:
            raise UserError(f"loader state of version {state['version']}, this program reads {STATE_VERSION}")
        for key, value in self._identity.items():
            if state["identity"][key] != value:
                raise UserError(
                    f"cannot resume the loader: {_difference(key, state['identity'][key], value)}; "
                    "resume with what the run was started with, or start a new run"
                )
        rank, ranks = state["rank"], state["world_size"]
        here = f"this is rank {self._epoch_shard.rank} of {self._epoch_shard.world_size}"
        if ranks == self._epoch_shard.world_size:
            if rank != self._epoch_shard.rank:
                raise UserError(
                    f"cannot resume the loader: the state is of rank {rank} of {ranks}, {here}; "
                    "every rank needs its own state"
                )
            self._start(state["origin"], state["pipeline"].cpu().numpy().tobytes())
            self.epoch, self.batch = state["epoch"], state["batch"]
            if self.batch >= len(self):  # taken right after an epoch's last batch
                self._end_epoch()
        elif state["batch"] == 0 or state["batch"] >= state["batches"]:
            epoch = state["epoch"] + (state["batch"] > 0)
            self._start(epoch, None)
            self.epoch, self.batch = epoch, 0
        else:
            raise UserError(
                f"cannot resume the loader: the state is of rank {rank} of {ranks} in mid-epoch "
                f"(batch {state['batch']} of {state['batches']}), {here}; the number of ranks can change "
                "between epochs only: resume with as many ranks, or from a checkpoint at the end of an epoch"
            )

    def close(self) -> None:
        """End all threads and free their memory."""
        if os.getpid() != self._process:
            return  # they are the parent's
        if self._producer:
            self._producer.close()
        self._producer = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _warn_of_fork() -> None:
    """Say so if a parent process of this one had a loader."""
    _makers.add(os.getpid())
    if len(_makers) > 1:
        warnings.warn(
            "a loader is made in a process forked from one that had a loader: DALI may hang for ever; start "
            "processes by multiprocessing.get_context('spawn')",
            RuntimeWarning,
            stacklevel=4,
        )


_makers: set[int] = set()
"""Processes that made loaders: this one, and those it was forked from."""


def _difference(key: str, before: str, now: str) -> str:
    """The change of a value for an error; configs are JSON, of which only what differs is shown."""
    if key != "config":
        return f"its {key} was {before!r}, now it is {now!r}"
    old, new = json.loads(before), json.loads(now)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"its {name} was {old.get(name)!r}, now it is {new.get(name)!r}" for name in changed)
