"""The CPU renderer: Numba kernels in threads of its own.

They work on one batch while DALI decodes the next: nobody waits for the last photo of a batch, as DALI's own
threads do between any two operators, and views are written where the batch keeps them
(`benchmarks/notes.md`).
"""

import hashlib
import logging
import math
import weakref
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.views import table as contract
from dali_bgaug.views.crop_boxes import choose
from dali_bgaug.views.render import Decoded, Rendered, Tiles, find_addresses, scratch_offsets
from dali_bgaug.views.table import ADDRESS, CROP, JOB, Table
from dali_bgaug.workers import Workers

log = logging.getLogger("dali_bgaug")


class CpuRenderer:
    """Renders on the CPU: see `render.Renderer`."""

    def __init__(self, threads: int, half: bool = False) -> None:
        """Start the threads and compile the kernels, some ten seconds at the very first time.

        Args:
            threads: that make images.
            half: float16 images instead of float32.

        Raises:
            UserError: Numba is not installed.
        """
        self._kernel = _kernel()
        self._threads, self._half = threads, half
        self._pool = Workers(threads, "views")
        self._buffers = Buffers()
        self._scratch = torch.empty(0)

    def render(
        self, table: Table, photos: Decoded, tiles: Tiles | None, masks: torch.Tensor | None
    ) -> Rendered:
        """Make all images of a table."""
        packed = None if masks is None else masks.numpy()
        crops = choose(table.jobs, photos.sizes, packed)
        values = scratch_offsets(table)[1]
        if values > len(self._scratch):
            self._scratch = torch.empty(values)
        images = {slot.name: self._buffers.take(slot.shape(table.count)) for slot in table.slots}
        addresses = find_addresses(table, photos, tiles, masks, list(images.values()), self._scratch)
        composited = np.zeros(len(table.jobs), bool)
        side = 0 if packed is None else math.isqrt(8 * packed.shape[1])
        copies = table.donors + table.views
        for start, stop, step in (
            (0, table.donors, 1),
            (
                table.donors,
                copies,
                table.per_photo,
            ),  # a photo's views by one thread, while it is in the cache
            (copies, len(composited), table.per_photo),
        ):
            counter = np.array([start])
            arguments = (table.jobs, crops, addresses, composited, side, stop, step, counter.ctypes.data)
            threads = min(self._threads, -(-(stop - start) // step))
            for done in [self._pool.submit(self._kernel, *arguments) for _ in range(threads)]:
                done.result()
        if self._half:
            images = {name: image.half() for name, image in images.items()}
        return Rendered(images, torch.from_numpy(crops["crop_box"].copy()), torch.from_numpy(composited))

    def close(self) -> None:
        """End the threads."""
        self._pool.close()


class Buffers:
    """Memory for images, used again once nobody holds a tensor of it.

    New memory would have to be cleared by the system page by page, at a tenth of the price of a view.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """float32 [*shape], of any values."""
        free = self._free[math.prod(shape)]
        memory = free.pop() if free else _aligned(math.prod(shape))
        lent = memory[:]  # lives as long as a tensor made of it, or of its parts
        weakref.finalize(lent, free.append, memory).atexit = False
        return torch.from_numpy(lent).view(shape)


def _aligned(count: int) -> np.ndarray:
    """float32 [count], at the begin of a line of the cache: what `kernels_base.stream` can write to."""
    memory = np.empty(count + _LINE, np.float32)
    return memory[-memory.ctypes.data // memory.itemsize % _LINE :][:count]


_LINE = 16
"""Values of a line: `kernels_base.LINE`, which a GPU's host cannot import."""


@cache
def _kernel() -> Any:
    """`kernels.render_jobs` as machine code, kept beside its source or in NUMBA_CACHE_DIR.

    Numba looks at the date of one file to see whether what it has kept is out of date; what is compiled is
    in several. So the name says of which content it is.
    """
    try:
        from numba import from_dtype, types

        from dali_bgaug.views import kernels, kernels_base, kernels_photometric, kernels_resample
    except ImportError as error:
        raise UserError(
            f"views on the CPU are made by kernels of Numba, which cannot be imported ({error}): "
            "pip install numba, or take data.device=gpu on a machine with a GPU"
        ) from error
    compiled = kernels, kernels_base, kernels_photometric, kernels_resample, contract
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in compiled)
    function = kernels.render_jobs.py_func
    function.__qualname__ = f"render_jobs-{hashlib.sha256(sources).hexdigest()[:12]}"
    records = [types.Array(from_dtype(dtype), 1, "C") for dtype in (JOB, CROP, ADDRESS)]
    signature = types.void(*records, types.boolean[::1], *[types.int64] * 4)
    return compile_kept(function, signature)


def compile_kept(function: Callable[..., Any], signature: Any) -> Any:
    """A function as machine code, which Numba keeps; where it cannot, one warning says so."""
    from numba import njit

    options = {"nogil": True, "fastmath": True}
    try:
        return njit(signature, cache=True, **options)(function)
    except Exception as damaged:  # empty, cut short, nowhere to keep it, no space: all are possible
        folder = _forget(function)
        try:
            if folder is None:
                raise
            return njit(signature, cache=True, **options)(function)
        except Exception:
            log.warning(
                f"{folder or 'nowhere'}: compiled kernels cannot be kept here ({type(damaged).__name__}: "
                f"{damaged}); every start compiles them, some ten seconds; NUMBA_CACHE_DIR names a folder "
                "for them"
            )
            return njit(signature, **options)(function)


def _forget(function: Any) -> Path | None:
    """Delete what Numba has kept of a function; where that was, if it can keep any."""
    from numba.core.caching import FunctionCache

    try:
        folder = Path(FunctionCache(function).cache_path)
        for path in folder.glob(f"*{function.__qualname__}*"):
            path.unlink(missing_ok=True)
    except (RuntimeError, OSError):
        return None
    return folder
