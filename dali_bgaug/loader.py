"""The loader: batches as an iterator of torch tensors, with epochs, exact resume, clean shutdown."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dali_bgaug.batches import BatchMaker, Producer
from dali_bgaug.errors import UnusablePhotos, UserError
from dali_bgaug.sampling import EpochShard

STATE_VERSION = 6


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
        build: Callable[[int, int], BatchMaker],
        epoch_shard: EpochShard,
        identity: dict[str, Any],
        ahead: int,
    ) -> None:
        """Build what makes the batches.

        Args:
            build: does it, given the epoch and its batch that come first.
            epoch_shard: this rank's part of an epoch.
            identity: what a state may only be loaded into if it is equal: data, config, device.
            ahead: finished batches kept ready.
        """
        self._build, self._epoch_shard, self._identity = build, epoch_shard, identity
        self._ahead = ahead
        self._producer: Producer | None = None
        self._process = os.getpid()
        _warn_of_fork()
        self._start(0, 0)

    def _start(self, epoch: int, batch: int) -> None:
        """Begin with a batch of an epoch."""
        self.close()
        self.epoch, self.batch = epoch, batch
        self._maker = self._build(epoch, batch)
        self._producer = Producer(self._maker, self._ahead)

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
            if found := self._maker.reader.explain():
                raise UnusablePhotos(f"{place}; {found}", found.reasons) from error
            if isinstance(error, UserError):  # of what it reads from: a store, a disk
                raise UserError(f"{place}; {error}") from error
            raise RuntimeError(f"{place}; what it was reading is good") from error
        with self._all_or_closed():
            made = producer.take()
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
        """State to resume from: numbers and text. The batch last given counts as done."""
        self._open_producer()
        return {
            "version": STATE_VERSION,
            "identity": dict(self._identity),
            "rank": self._epoch_shard.rank,
            "world_size": self._epoch_shard.world_size,
            "batches": len(self),
            "epoch": self.epoch,
            "batch": self.batch,
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
        epoch, batch = state["epoch"], state["batch"]
        if batch >= state["batches"]:  # taken right after an epoch's last batch
            epoch, batch = epoch + 1, 0
        if ranks == self._epoch_shard.world_size:
            if rank != self._epoch_shard.rank:
                raise UserError(
                    f"cannot resume the loader: the state is of rank {rank} of {ranks}, {here}; "
                    "every rank needs its own state"
                )
        elif batch:
            raise UserError(
                f"cannot resume the loader: the state is of rank {rank} of {ranks} in mid-epoch "
                f"(batch {state['batch']} of {state['batches']}), {here}; the number of ranks can change "
                "between epochs only: resume with as many ranks, or from a checkpoint at the end of an epoch"
            )
        self._start(epoch, batch)

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
