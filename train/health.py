"""Health check before a training: what would fail or hold it up, found within a minute.

    python -m train --check --config configs/NAME.yaml [key=value …]        # also by torchrun

A line for each of CPUs, GPUs, clocks, all_reduce, shards, a batch, and space for checkpoints. Nothing is
written. Ranks are held against each other: one that is unlike the others is what costs a night.
"""

import itertools
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dali_bgaug.dataset import open_packed
from dali_bgaug.decoding import DecodeOptions
from dali_bgaug.errors import UserError, shown
from pipelines import LoaderConfig
from pipelines.build import default_threads
from train import checkpoint, distributed
from train.config import RunConfig
from train.trainer import Trainer
from train.writer import bytes_of

SKEW_S = 1.0
"""Seconds that clocks may be apart."""
REDUCED = 16 << 20
"""Numbers, float32, of the timed all_reduce: 64 MiB."""
READING_S = 2.0
"""Seconds for which each rank reads shards, or less if it has read its part by then."""
_CHUNK = 8 << 20
_FAILURES = (UserError, OSError, RuntimeError)  # torch's own are RuntimeErrors, out of memory among them
_DRIVER = Path("/proc/driver/nvidia/version")


class Finding(NamedTuple):
    """What a check found."""

    what: str
    value: str
    remedy: str = ""
    """What to do about a failure; empty if all is well."""

    def text(self) -> str:
        """The lines of the table."""
        first, *rest = self.value.split("\n")
        lines = [f"{self.what:<13}{'FAILED' if self.remedy else 'ok':<8}{shown(first)}"]
        return "\n".join(
            [*lines, *(f"{'':<21}{shown(line.strip())}" for line in [*rest, self.remedy] if line)]
        )


def check_health(config: RunConfig, out: Path, device: torch.device) -> bool:
    """Print the table, on rank 0, a line as it is found; whether all is well. Every rank must call this.

    A rank that cannot take a step says so itself and ends, with status 1: others may be waiting for it.

    out: the folder of the run to be.
    """
    with distributed.process_group(device, config.timeout_s):
        distributed.limit_waiting(config.timeout_s)
        failed = []

        def note(finding: Finding) -> bool:
            if distributed.rank() == 0:
                print(finding.text(), flush=True)
            failed.extend([finding.what] if finding.remedy else [])
            return not finding.remedy

        note(_cpus(config))
        note(_gpus(device))
        note(_clocks())
        note(_all_reduce(device))
        if note(_shards(config.data)):
            step, size = _step(config, device)
            if not size and distributed.world_size() > 1:
                print(step.text(), flush=True)
                raise SystemExit(1)
            if note(step):
                note(distributed.broadcast(_space(config, out, size) if distributed.rank() == 0 else None))
        if distributed.rank() == 0:
            untried = {"shards": "; no batch was tried", "batch": "; space was not looked at"}
            rest = untried.get(failed[-1], "") if failed else ""
            print(f"failed: {', '.join(failed)}{rest}" if failed else "ready to train")
        return not failed


def _everywhere(what: str, probe: Callable[[], Any], remedy: str) -> tuple[list[Any], Finding | None]:
    """What a probe returns on every rank, and, if it fails on any, a finding that says so.

    remedy: what to do, where the error does not say it.
    """
    found, problem = None, ""
    try:
        found = probe()
    except _FAILURES as error:
        problem = str(error) or type(error).__name__
    every, problems = zip(*distributed.all_gather_objects((found, problem)))
    bad = [rank for rank, problem in enumerate(problems) if problem]
    if not bad:
        return list(every), None
    place = f"on {len(bad)} of {len(problems)} ranks, rank {bad[0]}: " if len(problems) > 1 else ""
    return [], Finding(what, place + problems[bad[0]], remedy)


def _cpus(config: RunConfig) -> Finding:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own = (len(os.sched_getaffinity(0)), local, config.data.threads or default_threads())
    found = distributed.all_gather_objects(own)
    spare = [cpus - ranks * threads for cpus, ranks, threads in found]
    cpus, ranks, threads = found[worst := spare.index(min(spare))]
    return Finding(
        "CPU threads",
        f"{threads} a rank (data.threads); its machine has {cpus} CPUs for {ranks} rank(s)",
        f"rank {worst}: give the job more CPUs (Slurm: --cpus-per-task), or lower data.threads"
        if min(spare) < 0
        else "",
    )


def _gpus(device: torch.device) -> Finding:
    def probe() -> str:
        if device.type == "cpu":
            return "none, the CPU trains"
        properties = torch.cuda.get_device_properties(device)
        driver = _DRIVER.read_text().split("\n")[0].split("  ") if _DRIVER.is_file() else []
        version = next((word for word in driver if word[:1].isdigit()), "unknown")
        memory = properties.total_memory / 2**30
        return f"{properties.name}, {memory:.0f} GiB, driver {version}, torch's CUDA {torch.version.cuda}"

    found, failure = _everywhere("GPU", probe, "look at nvidia-smi on that machine")
    if failure:
        return failure
    kinds = {kind: [rank for rank, other in enumerate(found) if other == kind] for kind in found}
    if len(kinds) == 1:
        return Finding("GPU", f"{len(found)} x {found[0]}" if device.type == "cuda" else found[0])
    value = "\n".join(f"ranks {', '.join(map(str, ranks))}: {kind}" for kind, ranks in kinds.items())
    return Finding("GPU", value, "take machines of one kind: the slowest sets the pace of all")


def _clocks() -> Finding:
    for _ in range(2):  # the first time connections are made
        distributed.barrier()
        times = distributed.all_gather_objects(time.time())
    skew = max(times) - min(times)
    late = times.index(min(times))
    return Finding(
        "clocks",
        f"{1000 * skew:.0f} ms apart",
        f"rank {late} is behind rank {times.index(max(times))}: have their machines keep time (NTP)"
        if skew > SKEW_S
        else "",
    )


def _all_reduce(device: torch.device) -> Finding:
    ranks = distributed.world_size()
    if ranks == 1:
        return Finding("all_reduce", "one rank, which has none to wait for")
    total = distributed.all_reduce_sum(torch.tensor([distributed.rank() + 1.0], device=device)).item()
    values, seconds = torch.ones(REDUCED, device=device), []
    for _ in range(4):
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce_sum(values)
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
    found = distributed.all_gather_objects((total, statistics.median(seconds[1:])))
    wrong = [rank for rank, (total, _) in enumerate(found) if total != ranks * (ranks + 1) / 2]
    times = [one for _, one in found]
    slowest = times.index(max(times))
    return Finding(
        "all_reduce",
        f"{ranks} ranks, {values.nbytes / 2**20:g} MiB in {1000 * max(times):.1f} ms, slowest rank {slowest}",
        f"the sum is wrong on rank(s) {', '.join(map(str, wrong))}: look at their GPUs and links "
        "(dmesg, NCCL_DEBUG=INFO)"
        if wrong
        else "",
    )


def _shards(config: LoaderConfig) -> Finding:
    def probe() -> tuple[str, str, float]:
        data = open_packed(config.shards, verify=False, cache=config.cache_options)
        filled = [number for number, size in enumerate(data.sizes) if size]
        rank, ranks, count = distributed.rank(), distributed.world_size(), len(filled)
        start = rank * count // ranks
        part = filled[start : max(start + 1, (rank + 1) * count // ranks)]
        first_and_last = np.array([[part[0], 0], [part[-1], data.sizes[part[-1]] - 1]])
        if problems := data.damaged(first_and_last, DecodeOptions()):
            raise UserError(data.explain([problem.line for problem in problems]))
        summary = f"{data.samples} photos in {len(data.sizes)} shards"
        with closing(data.files()) as files:
            return data.digest, summary, _rate(files.tar(number) for number in part)

    found, failure = _everywhere("shards", probe, "every machine must see the same whole data.shards")
    if failure:
        return failure
    digests, summaries, rates = zip(*found)
    other = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    slowest = rates.index(min(rates))
    return Finding(
        "shards",
        f"{summaries[0]}; read at {sum(rates):.0f} MB/s, slowest rank {slowest} at {min(rates):.0f} MB/s",
        f"rank(s) {', '.join(map(str, other))} see another manifest.json than rank 0: copy the shards anew"
        if other
        else "",
    )


def _rate(paths: Iterable[Path]) -> float:
    """MB/s of reading files, for a while, with the time until they are there; what the machine has cached is
    read faster."""
    count, start = 0, time.perf_counter()
    for path in itertools.takewhile(lambda _: time.perf_counter() < start + READING_S, paths):
        with path.open("rb", buffering=0) as file:
            while time.perf_counter() < start + READING_S and (chunk := file.read(_CHUNK)):
                count += len(chunk)
    return count / 1e6 / max(time.perf_counter() - start, 1e-9)


def _step(config: RunConfig, device: torch.device) -> tuple[Finding, int]:
    """Two steps with the first batch, uncompiled, and the bytes of a checkpoint, 0 if they fail."""
    try:
        with Trainer(config.replaced(compile=False), device) as trainer:
            batches = itertools.repeat(next(iter(trainer.loader)))
            for _ in range(2):  # with the optimizer's buffers, which the first one makes
                trainer.steps_done = 0  # of a recipe that may have one alone
                start = time.perf_counter()
                loss, finite = trainer.read(trainer.step(batches))
                _synchronise(device)
            seconds, memory = time.perf_counter() - start, ""
            if device.type == "cuda":
                free, there = torch.cuda.mem_get_info(device)
                own = (torch.cuda.max_memory_allocated(device), there - free, there)
                peak, taken, there = (max(one) / 2**30 for one in zip(*distributed.all_gather_objects(own)))
                memory = f", peak {peak:.1f} GiB, {taken:.1f} of {there:.1f} GiB taken in all"
            size = bytes_of((trainer.method.state_dict(), trainer.optimizer.state_dict()))
            size += distributed.world_size() * bytes_of(trainer.loader.state_dict())
    except _FAILURES as error:
        value = f"rank {distributed.rank()}: {error}"
        return Finding("batch", value, "if memory is short: lower data.batch_size, or raise accumulate"), 0
    return Finding(
        "batch",
        f"{config.data.batch_size} photos, a step in {seconds:.2f} s, loss {loss['loss']:.3f}{memory}",
        "" if finite else "the loss is no number: lower optim.lr, or take precision=float32",
    ), size


def _space(config: RunConfig, out: Path, size: int) -> Finding:
    """size: bytes of a checkpoint."""
    permanent = config.epochs // config.keep_every_epochs if config.keep_every_epochs else 0
    kept = config.keep_checkpoints + permanent + 1  # which is being written
    there = sum(path.stat().st_size for path in checkpoint.list_checkpoints(out / "checkpoints"))
    place = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    value = f"{kept} of {size / 1e6:.1f} MB, {free / 1e9:.1f} GB free in {place}"
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("checkpoints", value, "you may not write there; choose another --out")
    lower = "lower keep_checkpoints, raise keep_every_epochs" if permanent else "lower keep_checkpoints"
    full = kept * size > free + there
    return Finding("checkpoints", value, f"free some space, {lower}, or choose another --out" if full else "")


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
