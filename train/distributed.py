"""Process group, and moving rows of tensors between ranks."""

import datetime
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dali_bgaug.errors import UserError
from dali_bgaug.files import lock

START = datetime.timedelta(minutes=10)
"""Limit of waiting for ranks that have met, until the first step is done: shards are opened, networks
compiled. One that dies meanwhile closes its connections, which the others notice at once."""


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device, timeout_s: float = START.total_seconds()) -> Iterator[None]:
    """Join the group `torchrun` started, if it did: NCCL on GPUs, gloo on CPUs.

    timeout_s: how long the others may take to join.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        _refuse_copies()
        yield
        return
    timeout = datetime.timedelta(seconds=timeout_s)
    with _ended_after(timeout_s, "the other ranks did not join (timeout_s); look at what they say"):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    limit_waiting(START.total_seconds())
    yield
    dist.destroy_process_group()  # not after an error: it would wait for ranks that wait for this one


def _refuse_copies() -> None:
    """A UserError where Slurm has started several of this program that know nothing of each other."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" not in os.environ and tasks.isdecimal() and int(tasks) > 1:
        raise UserError(
            f"srun has started {tasks} of these (SLURM_STEP_NUM_TASKS), each alone, without WORLD_SIZE: "
            "start one task a node, and torchrun in it (examples/slurm), or one task in all (srun --ntasks=1)"
        )


@contextmanager
def _ended_after(seconds: float, why: str) -> Iterator[None]:
    """End the process if the block takes longer: torch tries twice to reach rank 0, with a pause between."""

    def end() -> None:
        print(f"error: after {seconds:g} s {why}", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_groups: list[dist.ProcessGroup] = []


def new_group(ranks: list[int] | None = None, backend: str | None = None) -> dist.ProcessGroup:
    """A further group of these ranks, or of all. Every rank must call this, also for groups of others."""
    group = dist.new_group(ranks, timeout=START, backend=backend)
    if ranks is None or rank() in ranks:
        _groups.append(group)
    return group


def limit_waiting(seconds: float) -> None:
    """From now on give up on ranks that do not answer for so long."""
    if world_size() > 1:
        set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        for group in (None, *_groups):
            set_timeout(datetime.timedelta(seconds=seconds), group)


def all_reduce_mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of every rank's values [N]."""
    return all_reduce_sum(values) / world_size()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of every rank's values [N]."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def broadcast(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def hold(path: Path, option: str) -> Iterator[None]:
    """Hold a lock for all ranks while the block runs (`files.lock`); option: whose it is, for errors."""
    with ExitStack() as stack:
        problem = ""
        if rank() == 0:
            try:
                stack.enter_context(lock(path))
            except UserError as error:
                problem = str(error)
        if problem := broadcast(problem):
            raise UserError(f"{option}: {problem}")
        yield


def all_gather_objects(value: Any) -> list[Any]:
    """Every rank's value, in order of ranks, on every rank."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every rank has come so far."""
    all_gather_objects(None)


@torch.no_grad()
def all_gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """[N, …] of every rank -> [ranks * N, …] on every rank, in order of ranks."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def all_gather_uneven(rows: torch.Tensor) -> torch.Tensor:
    """[n, …] of every rank, each its own n -> all of them on every rank, in order of ranks."""
    counts = all_gather_objects(len(rows))
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = all_gather_rows(padded).split(max(counts))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@torch.no_grad()
def permute_rows(rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Reorder rows across all ranks: place i of rank r gets row `order[r N + i]` of the ranks' rows laid end
    to end.

    Every rank sends each row only to where it is wanted (one all-to-all), where gathering would send
    everything to everyone. rows: [N, …], the same N on every rank. order: a permutation of ranks * N, int64
    on the CPU, the same on every rank.
    """
    if world_size() == 1:
        return rows[order.to(rows.device)]
    count, me, ranks = len(rows), rank(), world_size()
    source, target = order // count, torch.arange(len(order)) // count
    sent = order[source == me] - me * count  # in the order in which the receivers want them
    sent_to = torch.bincount(target[source == me], minlength=ranks).tolist()
    wanted = source[target == me]
    received_from = torch.bincount(wanted, minlength=ranks).tolist()
    # A view in channels_last format is sent as it lies in memory.
    laid_out = rows.permute(0, 2, 3, 1) if rows.dim() == 4 else rows
    received = laid_out.new_empty(laid_out.shape)
    dist.all_to_all_single(received, laid_out[sent.to(rows.device)].contiguous(), received_from, sent_to)
    place = torch.argsort(torch.argsort(wanted, stable=True), stable=True)
    result = received[place.to(rows.device)]
    return result.permute(0, 3, 1, 2) if rows.dim() == 4 else result
