"""Asking the decoder that training uses whether it can decode something: what it cannot would end a run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline


class Decoder:
    """DALI's image decoder on bytes in memory, in one thread."""

    BATCH = 32
    """Most images at a time."""

    def __init__(self, device_id: int | None = None) -> None:
        """device_id: of a GPU; None is the CPU."""
        self._device_id = device_id
        self._pipeline: Pipeline | None = None

    def sizes(self, images: Sequence[bytes]) -> list[tuple[int, int] | None]:
        """Width and height of every image as decoded (upright), or None if it cannot be decoded.

        All at once, and in halves where that fails.
        """
        if not images:
            return []
        if len(images) > self.BATCH:
            return self.sizes(images[: self.BATCH]) + self.sizes(images[self.BATCH :])
        try:
            shapes = self._run(images)
        except RuntimeError:
            self._pipeline = None  # it does not work again after an error
            if len(images) == 1:
                return [None]
            half = len(images) // 2
            return self.sizes(images[:half]) + self.sizes(images[half:])
        return [(int(width), int(height)) for height, width, _ in shapes]

    def _run(self, images: Sequence[bytes]) -> list[tuple[int, int, int]]:
        if self._pipeline is None:
            self._pipeline = _define(
                batch_size=self.BATCH, num_threads=1, device_id=self._device_id, prefetch_queue_depth=1
            )
        with _quiet():
            self._pipeline.feed_input("encoded", [np.frombuffer(image, np.uint8) for image in images])
            return self._pipeline.run()[0].shape()


@pipeline_def
def _define() -> DataNode:
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    device = "cpu" if Pipeline.current().device_id is None else "mixed"
    return fn.decoders.image(encoded, device=device, output_type=types.RGB)


@contextmanager
def _quiet() -> Iterator[None]:
    """The codecs' C code writes to stderr what it dislikes, without saying of which file; we say it."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
