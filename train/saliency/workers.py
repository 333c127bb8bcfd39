"""Worker processes of a rank, and arrays on the disk that processes share."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from dali_bgaug.processes import process_pool


@contextmanager
def worker_pool(workers: int, work: str) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that die with this one. work: what they do, for the error.

    Raises:
        UserError: one of them was killed.
    """
    pool = process_pool(workers, "train.saliency.photos", "train.saliency.average")
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            f"a process that {work} was killed (out of memory, or a full disk?); run again, with fewer "
            f"workers than {workers}: it goes on from the last epoch"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def create(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """A new array in a file, mapped into memory, its space on the disk taken at once."""
    values = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return values


@contextmanager
def written(path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> Iterator[np.ndarray]:
    """An array to be filled in, whose file appears once it is whole."""
    with atomic(path) as temporary:
        values = create(temporary, shape, dtype)
        yield values
        values.flush()
