"""The C library's allocator, set so that a loader's memory stays flat.

The CPU decoder takes a block a batch for its photos, every time of another size. By default glibc serves
blocks of up to 32 MB from heaps that such blocks leave in pieces: a loader that makes batches of 16 grew by
a seventh over 3 000 of them. Taken from the system one by one, they are given back one by one.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MAPPED = 4 << 20
"""Bytes from which on a block is mapped; of 1 MiB and more it costs 5 % of a CPU's time, of 4 nothing."""
_KEPT = 64 << 20
"""Bytes at the end of a heap that are kept rather than given back: to ask for them anew takes longer."""


def keep_flat() -> None:
    """Set the thresholds of this process, unless its user did (mallopt(3)) or it is not glibc's."""
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
