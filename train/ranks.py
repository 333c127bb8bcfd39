"""Measurements of all ranks for a line of the log: waiting for data, steps, the device's speed and memory.

Ranks wait for each other in every step, so that a late one makes all late. What tells it from the others:
it waits longer for its loader, or its device is slower at the same work.
"""

import time

import torch

from train.distributed import all_gather_rows
from train.monitor import Reading
from train.records import RanksRecord

SIDES = {"cpu": 256, "cuda": 4096}
"""Of the probe's square matrices: a millisecond's work, at most a few."""


def measure_ranks(reading: Reading, passes: int, device: torch.device) -> RanksRecord:
    """Gather what every rank has measured since the last line; every rank must call this.

    Args:
        reading: this rank's, of its clock.
        passes: batches of an optimizer step.
        device: that it trains on.
    """
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
    mine = [reading.data_wait, reading.batch_s * passes, _probe(device), memory]
    row = torch.tensor([mine], dtype=torch.float64, device=device)
    data_wait, step_s, probe_ms, memory_mb = all_gather_rows(row).T.tolist()
    return RanksRecord(
        data_wait=[round(value, 4) for value in data_wait],
        step_s=[round(value, 5) for value in step_s],
        probe_ms=[round(value, 3) for value in probe_ms],
        memory_mb=[round(value) for value in memory_mb] if device.type == "cuda" else None,
    )


def _probe(device: torch.device) -> float:
    """Milliseconds of a matrix product: work that is equal on every rank and waits for none."""
    side = SIDES[device.type]
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.ones(side, side, dtype=kind, device=device)
    seconds = []
    for _ in range(3):  # the first one may load a library
        _wait_for(device)
        start = time.perf_counter()
        matrix @ matrix
        _wait_for(device)
        seconds.append(time.perf_counter() - start)
    return 1000 * sorted(seconds)[1]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
