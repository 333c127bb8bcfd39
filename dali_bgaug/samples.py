"""Encoded samples, as they are read: what a data set gives, and the decoder takes."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from dali_bgaug.sampling import Piece


class Encoded(NamedTuple):
    """A batch of samples, still encoded, on the CPU."""

    photos: list[np.ndarray]
    """Image files, uint8 [bytes] each; their memory is the batch's `Memory`."""
    labels: np.ndarray
    """int64 [N]."""
    masks: np.ndarray | None = None
    """Bit-packed masks, uint8 [N, S * S / 8]."""
    tiles: np.ndarray | None = None
    """Geometry of tiled backgrounds, int32 [N, 8]; zeros: it lends none."""
    tile_photos: list[np.ndarray] | None = None
    """JPEGs of tiled backgrounds, like photos; empty: it lends none."""

    @property
    def lends(self) -> np.ndarray:
        """Photos whose tile may be used, bool [N]."""
        if self.tiles is not None:
            return np.asarray(self.tiles.any(axis=1))
        if self.tile_photos is not None:
            return np.array([len(tile) > 0 for tile in self.tile_photos])
        return np.zeros(len(self.labels), bool)


class Memory:
    """Memory of a batch's encoded photos, used again for another batch."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def take(self, size: int) -> np.ndarray:
        """uint8 [size], whose content is lost when memory is taken again."""
        if len(self._bytes) < size:
            self._bytes = np.empty(size + size // 4, np.uint8)
        return self._bytes[:size]


class SampleReader(Protocol):
    """Samples of a data set by shard and row, for one thread."""

    def stage(self, shards: Iterable[int]) -> None:
        """Say which shards will be read, in this order, some time."""

    def ahead(self, piece: Piece) -> None:
        """Say that these samples will be read soon."""

    def read(self, rows: np.ndarray, memory: Memory) -> Encoded:
        """Read samples, int64 [N, 2].

        Raises:
            OSError, UserError: they cannot be read, or are not as they were packed.
        """

    def release(self, shard: int) -> None:
        """Say that nothing more of a shard will be read, for now."""

    def interrupt(self) -> None:
        """Have `read`, in another thread, wait no longer for files: it raises an error."""

    def close(self) -> None:
        """Close all files."""
