"""Asking the decoder that training uses whether it can decode something: what it cannot would end a run."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from nvidia.dali import backend, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline

from dali_bgaug.errors import UserError
from dali_bgaug.orientation import is_contradictory

MAX_PIXELS = 100_000_000
"""Of a photo, unless its masks were made with another limit: a file of 2 kB may claim 65 535 x 65 535."""


class DecodeOptions(NamedTuple):
    """Options of decoding photos."""

    upright: bool = True
    """Whether EXIF orientation is applied."""
    border: int = 0
    """Pixels cut off on every side, as if they had not been stored."""
    least: int = 1
    """Pixels of the shortest side that may be, border and all."""


class Problem(NamedTuple):
    """Why a photo cannot be used."""

    photo: str
    """Its path; of packed shards `SHARD: KEY`."""
    line: str
    """The photo and the reason, for people."""


GREY_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcp"
    "LDAxNDQ0Hyc5PTgyPC4zNDL/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAA"
    "AAD/2gAIAQEAAD8AP//Z"
)
"""A grey image of 8 x 8 pixels that every JPEG decoder knows."""

_DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression", "Invalid SOS")
"""Begin of libjpeg's warnings of a damaged image; there are others, of odd headers."""


class Decoder:
    """DALI's image decoder on bytes in memory, in one thread.

    One image at a time: of batches that hold several kinds of damage, one in some hundred ends DALI 2.4 with
    a segmentation fault. That costs 5 % of the rate.
    """

    def __init__(self, device_id: int | None = None, upright: bool = True) -> None:
        """Nothing is built until it is needed.

        Args:
            device_id: of a GPU; None is the CPU.
            upright: whether EXIF orientation is applied.

        Raises:
            UserError: there is no such GPU.
        """
        if device_id is not None and device_id >= backend.GetCUDADeviceCount():
            raise UserError(f"GPU {device_id} is not on this machine; decode on the CPU (--device cpu)")
        self._device_id, self._upright = device_id, upright
        self._pipeline: Pipeline | None = None
        self._header: Pipeline | None = None
        self.warning = ""
        """Of damage that the last `decode` forgave, in libjpeg's words; on the CPU only."""

    def problem(self, image: bytes, max_pixels: int, least: int = 1) -> str | None:
        """Why training could not use an image, or None; one that is too large is not decoded.

        least: pixels of the shortest side that may be.
        """
        size = self.peek(image)
        problem = size and (too_large(*size, max_pixels) or too_small(*size, least))
        if size and (problem or self.decode(image) is not None):
            return problem
        return "cannot be decoded"

    def peek(self, image: bytes) -> tuple[int, int] | None:
        """Width and height (upright in any case), as the header says, or None if there is none."""
        if self._header is None:
            self._header = _define_header(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
        try:
            with _quiet():
                self._header.feed_input("encoded", [np.frombuffer(image, np.uint8)])
                height, width, _ = np.asarray(self._header.run()[0][0]).tolist()
        except RuntimeError:
            self._header = None
            return None
        return width, height

    def decode(self, image: bytes) -> np.ndarray | None:
        """The pixels, uint8 [H, W, 3], or None if it cannot be decoded. Valid until the next call.

        Raises:
            UserError: the decoder cannot decode anything, so it is not the image's fault.
        """
        self.warning = ""
        if self._upright and is_contradictory(image):  # which can end the process
            return None
        try:
            return self._run(image)
        except RuntimeError as error:
            self._pipeline = None  # it does not work again after an error
            try:
                self._run(GREY_JPEG)
            except RuntimeError:
                raise UserError(
                    f"the training decoder does not work here ({error}); is memory used up?"
                ) from error
            return None

    def size(self, image: bytes) -> tuple[int, int] | None:
        """Width and height of an image as decoded (upright), or None if it cannot be decoded."""
        pixels = self.decode(image)
        return None if pixels is None else (pixels.shape[1], pixels.shape[0])

    def _run(self, image: bytes) -> np.ndarray:
        if self._pipeline is None:
            self._pipeline = _define(
                self._upright, batch_size=1, num_threads=1, device_id=self._device_id, prefetch_queue_depth=1
            )
        with _quiet() as said:
            self._pipeline.feed_input("encoded", [np.frombuffer(image, np.uint8)])
            pixels = np.asarray(self._pipeline.run()[0].as_cpu()[0])
        self.warning = next((line for line in said if line.startswith(_DAMAGE)), "")
        return pixels


def too_large(width: int, height: int, max_pixels: int) -> str | None:
    """The problem of an image of more pixels than there may be, or None."""
    if width * height <= max_pixels:
        return None
    return f"has {width} x {height} pixels, more than {max_pixels:,} (--max-pixels of tools.masks)"


def too_small(width: int, height: int, least: int) -> str | None:
    """The problem of an image with a shorter side than there may be, or None."""
    if min(width, height) >= least:
        return None
    return f"has {width} x {height} pixels, fewer than the {least} a side of crop and border"


@pipeline_def
def _define_header() -> DataNode:
    return fn.peek_image_shape(fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True))


@pipeline_def
def _define(upright: bool) -> DataNode:
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    device = "cpu" if Pipeline.current().device_id is None else "mixed"
    return fn.decoders.image(encoded, device=device, output_type=types.RGB, adjust_orientation=upright)


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """The codecs' C code writes to stderr what it dislikes, without saying of which file; we say it.

    The lines are in the list once the context is left.
    """
    lines: list[str] = []
    try:
        saved = os.dup(2)
    except OSError:  # closed
        yield lines
        return
    with os.fdopen(os.memfd_create("stderr"), "w+b", buffering=0) as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
