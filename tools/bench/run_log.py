"""Logs of training runs: their lines, and what every rank measured in them."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_log

LATE_WAIT = 0.05
"""A straggler waits for data a larger share of the time than the median rank, by this."""
LATE_PROBE = 1.2
"""A straggler's device takes this much longer for the same work."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl; says which were damaged and are left out.

    Raises:
        UserError: there is no such file, or no line in it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such log; give the folder of a run (its --out)")
    rows, damaged = read_log(path)
    if damaged:
        print(f"{path}: left out lines {damaged}, which are damaged", file=sys.stderr)
    if not rows:
        raise UserError(f"{path}: empty; the run has not logged a step yet")
    return rows


class RankLog(NamedTuple):
    """Measurements of every rank over the lines of a log, of which those with its last number of ranks."""

    steps: np.ndarray
    """int [lines]."""
    values: dict[str, np.ndarray]
    """By name (`train.records.RanksRecord`), float [lines, ranks]; without memory_mb, if on the CPU."""
    images_per_s: np.ndarray
    """Of all ranks together, float [lines]."""

    @property
    def count(self) -> int:
        """The number of ranks."""
        return self.values["data_wait"].shape[1]

    @property
    def rate(self) -> float:
        """Images/s of one rank."""
        return float(np.median(self.images_per_s)) / self.count

    @property
    def waiting(self) -> float:
        """Share of the time that the rank waits for data which waits longest; what holds up all."""
        return float(np.median(self.values["data_wait"].max(axis=1)))

    @property
    def unhindered(self) -> float:
        """Images/s of a rank that never waits for data; on a GPU an upper bound, as waiting is."""
        return self.rate / max(1 - self.waiting, 0.01)

    def of_a_rank(self, name: str) -> np.ndarray:
        """Medians over the lines, float [ranks]."""
        return np.median(self.values[name], axis=0)

    def stragglers(self) -> dict[int, str]:
        """Ranks that make the others wait, each with what it is late by."""
        wait, probe = self.of_a_rank("data_wait"), self.of_a_rank("probe_ms")
        usual, pace = (float(np.quantile(values, 0.5, method="lower")) for values in (wait, probe))
        found = {}
        for rank in range(self.count):
            texts = []
            if wait[rank] > usual + LATE_WAIT:
                texts.append(f"waits for data {wait[rank]:.0%} of the time, the median rank {usual:.0%}")
            if probe[rank] > pace * LATE_PROBE:
                texts.append(f"its device takes {probe[rank] / pace:.2f} times the median for the same work")
            if texts:
                found[rank] = "; ".join(texts)
        return found


def read_ranks(path: Path) -> RankLog:
    """What every rank measured, of a run's log.jsonl.

    Raises:
        UserError: there is no such log, or no line of it has `ranks`.
    """
    rows = [row for row in read_rows(path) if row.get("ranks")]
    if not rows:
        raise UserError(f"{path}: no line has 'ranks'; logs of older versions and of detection have none")
    count = len(rows[-1]["ranks"]["data_wait"])
    rows = [row for row in rows if len(row["ranks"]["data_wait"]) == count]
    return RankLog(
        steps=np.array([row["step"] for row in rows]),
        values={name: np.array([row["ranks"][name] for row in rows], float) for name in rows[-1]["ranks"]},
        images_per_s=np.array([row["images_per_s"] for row in rows], float),
    )
