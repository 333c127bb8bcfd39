"""The GPU renderer: the Triton kernels of `gpu_crop_boxes.py` and `gpu_pixels.py`, on the current stream.

Two launches of small programs decide and copy, four a wave make pixels:

    choose_crop_boxes                       every job's crop box, from the masks on the device
    resample, colour, blur_rows, finish     donors, then views
    copy                                    negatives and rotations

Nothing of a mask or an image comes to the host, and nothing waits for the device.
"""

import math
import os
import shutil

import numpy as np
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.views.render import Decoded, Rendered, Tiles, find_addresses, scratch_offsets
from dali_bgaug.views.table import CROP, TILE, Table

ALIGNMENT = 64
"""Of arrays sent together, in bytes."""


class GpuRenderer:
    """Renders on a GPU: see `render.Renderer`."""

    def __init__(self, device: torch.device, half: bool = False) -> None:
        """Load the kernels; each is compiled at its first launch, and kept.

        Args:
            device: where images are made; the CPU if Triton interprets (TRITON_INTERPRET=1), for tests.
            half: float16 images instead of float32.

        Raises:
            UserError: Triton is not installed, or there is no C compiler, with which it builds its launchers.
        """
        try:
            from dali_bgaug.views import gpu_crop_boxes, gpu_pixels
        except ImportError as error:
            raise UserError(
                f"views on a GPU are made by kernels of Triton, which cannot be imported ({error}): "
                "pip install triton (it comes with torch's CUDA wheels), or take data.device=cpu"
            ) from error
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        if not interpreted and not (compiler and shutil.which(compiler)):
            raise UserError(
                "views on a GPU need a C compiler, with which Triton builds the launchers of its kernels: "
                "install gcc or clang, or name one in CC; or take data.device=cpu"
            )
        self._crop_boxes, self._pixels = gpu_crop_boxes, gpu_pixels
        self._device, self._half = device, half

    def render(
        self, table: Table, photos: Decoded, tiles: Tiles | None, masks: torch.Tensor | None
    ) -> Rendered:
        """Make all images of a table: see `render.Renderer`."""
        kernels, jobs, count = self._pixels, table.jobs, len(table.jobs)
        dtype = torch.float16 if self._half else torch.float32
        images = [self._empty(slot.shape(table.count), dtype) for slot in table.slots]
        scratch = self._empty((max(1, scratch_offsets(table)[1]),))
        addresses = find_addresses(table, photos, tiles, masks, images, scratch)
        # Values of images in the making lie one after another, in each wave from 0 on.
        values = 3 * jobs["size"].astype(np.int64) ** 2
        offsets = np.cumsum(values) - values
        offsets[table.donors :] -= values[: table.donors].sum()
        sent = self._send(jobs, addresses, offsets)
        job, address, offset = sent[0].data_ptr(), sent[1].data_ptr(), sent[2].view(torch.int64)
        crops = torch.zeros((count, CROP.itemsize), dtype=torch.uint8, device=self._device)
        composited = torch.zeros(count, dtype=torch.int8, device=self._device)
        side = 0 if masks is None else math.isqrt(8 * masks.shape[1])
        self._crop_boxes.choose_crop_boxes[(count,)](
            *(job, crops.data_ptr(), address, 0 if masks is None else masks.data_ptr()),
            SIDE=side,
            GRID=max(8, power_of_two(side // 8)),
            DISTORTED=bool(side and jobs["distorted"].any()),
        )
        tile = {"ROWS": kernels.ROWS, "COLUMNS": kernels.COLUMNS, "num_warps": kernels.WARPS}
        copies = table.donors + table.views
        for first, stop in ((0, table.donors), (table.donors, copies)):
            if first == stop:
                continue
            parts = self._parts(jobs[first:stop])
            canvas, blurred = (self._empty((int(values[first:stop].sum()),)) for _ in range(2))
            sums, grid = self._empty((stop - first, parts)), (stop - first, parts)
            at, wave = (job, crops.data_ptr(), address), jobs[first:stop]
            tiled = isinstance(tiles, np.ndarray) and bool((wave["source"] == TILE).any())
            kernels.resample[grid](*at, offset, canvas, sums, first, parts, TILED=tiled, SIDE=side, **tile)
            if (wave["jittered"] | wave["grayscale"]).any():
                kernels.colour[grid](
                    job, offset, canvas, sums, first, parts, PARTS=power_of_two(parts), **tile
                )
            if (wave["sigma"] > 0).any():
                kernels.blur_rows[grid](job, offset, canvas, blurred, first, **tile)
            half = self._half and first == table.donors
            kernels.finish[grid](
                *at, offset, canvas, blurred, composited, first, HALF=half, SIDE=side, **tile
            )
        if copies < count:
            kernels.copy[(count - copies, self._parts(jobs[copies:]))](
                *(job, crops.data_ptr(), address, composited, copies), HALF=self._half, SIDE=side, **tile
            )
        start = dict(CROP.fields or ())["crop_box"][1]
        crop_boxes = crops[:, start : start + 16].contiguous().view(torch.float32)
        return Rendered(
            {s.name: p for s, p in zip(table.slots, images, strict=True)}, crop_boxes, composited.bool()
        )

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)

    def _send(self, *arrays: np.ndarray) -> list[torch.Tensor]:
        """Copies of the arrays' bytes on the device, in one transfer.

        NumPy fills the pinned buffer: torch would wake a thread a core to copy 200 kB, all of which DALI's
        decoder keeps busy (6 ms each).
        """
        places = np.cumsum([0, *(-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays)])
        pinned = torch.empty(int(places[-1]), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        buffer = pinned.numpy()
        for place, array in zip(places, arrays, strict=False):
            buffer[place : place + array.nbytes] = array.view(np.uint8).reshape(-1)
        sent = pinned.to(self._device, non_blocking=True)
        return [sent[p : p + array.nbytes] for p, array in zip(places, arrays, strict=False)]

    def _parts(self, jobs: np.ndarray) -> int:
        """Programs of the largest image."""
        size = int(jobs["size"].max())
        return -(-size // self._pixels.ROWS) * -(-size // self._pixels.COLUMNS)

    def close(self) -> None:
        """Nothing is held between batches."""


def power_of_two(number: int) -> int:
    """The power of two that is not smaller."""
    return 1 << max(0, number - 1).bit_length()
