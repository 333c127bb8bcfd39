"""Rounds of stages in turn, what they cost, and how sure a median of rounds is."""

import math
import os
import time
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

RESAMPLES = 2000
Key = TypeVar("Key", bound=Hashable)


class Stage(Protocol):
    """A stage that can be timed."""

    def run(self, batches: int) -> int:
        """Make so many batches, or some more; returns how many. No work is under way before or after."""


class Spread(dict[str, float]):
    """`median`, `low` and `high`: a median of rounds and its 95 % interval."""


class Rounds:
    """Seconds and CPU seconds a batch, of every stage in every round."""

    def __init__(self, seconds: dict[Key, list[float]], cpu: dict[Key, list[float]]) -> None:
        self._seconds = {key: np.array(values) for key, values in seconds.items()}
        self._cpu = cpu
        self.count = count = len(next(iter(self._seconds.values())))
        # A round's figures of all stages are drawn together: what slowed one slowed its neighbours.
        self._draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))

    def rate(self, key: Key, images: int) -> Spread:
        """Images per second, of batches with so many."""
        return _spread(images / np.median(self._seconds[key]), images / self._resampled(key))

    def ratio(self, key: Key, other: Key) -> Spread:
        """The rate of one stage over that of another."""
        ratio = np.median(self._seconds[other]) / np.median(self._seconds[key])
        return _spread(ratio, self._resampled(other) / self._resampled(key))

    def adds(self, key: Key, before: Key | None, images: int) -> Spread:
        """Milliseconds an image that one stage takes longer than another (or than none)."""
        each = 1000 / images
        more = np.median(self._seconds[key]) - (np.median(self._seconds[before]) if before else 0)
        resampled = self._resampled(key) - (self._resampled(before) if before else 0)
        return _spread(each * more, each * resampled)

    def cpu_median(self, key: Key) -> float:
        """CPU seconds a batch."""
        return float(np.median(self._cpu[key]))

    def _resampled(self, key: Key) -> np.ndarray:
        """Medians of as many rounds, drawn with replacement: the bootstrap."""
        return np.median(self._seconds[key][self._draws], axis=1)


def _spread(median: float, resampled: np.ndarray) -> Spread:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Spread(median=_digits(median), low=_digits(min(low, median)), high=_digits(max(high, median)))


def _digits(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.5g}")


def interleave(
    stages: Mapping[Key, Stage], rounds: int, batches: int, title: str = "bench", limit_s: float = math.inf
) -> Rounds:
    """Time every stage once a round, in a new order each time, so that a busy neighbour slows all alike.

    No round begins after `limit_s`, but the first.
    """
    keys, order = list(stages), np.random.default_rng(0)
    seconds: dict[Key, list[float]] = {key: [] for key in keys}
    cpu: dict[Key, list[float]] = {key: [] for key in keys}
    start = time.perf_counter()
    with tqdm(total=rounds * len(keys), desc=title, unit="round", dynamic_ncols=True) as bar:
        for number in range(rounds):
            if number and time.perf_counter() - start > limit_s:
                break
            for place in order.permutation(len(keys)):
                taken = time_round(stages[keys[place]], batches)
                seconds[keys[place]].append(taken[0])
                cpu[keys[place]].append(taken[1])
                bar.update()
    return Rounds(seconds, cpu)


def time_round(stage: Stage, batches: int) -> tuple[float, float]:
    """Seconds a batch, and seconds of CPU time a batch of this process and its children."""
    cpu, start = cpu_seconds(), time.perf_counter()
    made = stage.run(batches)
    seconds = time.perf_counter() - start
    return seconds / made, (cpu_seconds() - cpu) / made


def cpu_seconds() -> float:
    """CPU time of this process and its live children; the system counts a child's only once it has ended."""
    ticks = 0
    for _, words in _children():
        ticks += int(words[11]) + int(words[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _children() -> Iterator[tuple[Path, list[str]]]:
    """The live children of this process: their folders in /proc and the words of `stat` after the name."""
    own = str(os.getpid())
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                text = (folder / "stat").read_text(encoding="ascii", errors="replace")
            except OSError:  # it has just ended
                continue
            words = text.rpartition(")")[2].split()  # the name before may hold spaces
            if words[1] == own:
                yield folder, words


def own_memory() -> int:
    """Resident bytes of this process but for mapped files: shards in the page cache are the system's."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """The most bytes resident so far, mapped files included, of this process and its live children."""
    return sum(_peak(folder) for folder in (Path("/proc/self"), *(folder for folder, _ in _children())))


def _peak(folder: Path) -> int:
    for line in (folder / "status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0
