"""Reading of packed shards: samples by shard and row, each by one read of its tar.

Of a shard that is being read its index is in memory, and its tar open; of others nothing. The kernel is told
which samples come, so that it has them in memory before they are asked for.
"""

import os
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import numpy as np

from dali_bgaug.errors import UserError
from dali_bgaug.samples import Encoded, Memory
from dali_bgaug.sampling import Piece
from dali_bgaug.shard_files import ShardFiles
from dali_bgaug.shard_index import REMEDY, Members
from dali_bgaug.shards import Manifest, read_members
from dali_bgaug.tiles import NUMBERS

_OPEN_FILES = 300
"""Tars open at a time: a process may usually open 1024 files."""
_GAP = 1 << 14
"""Bytes between two wanted members that are read along: one read more would cost as much."""


class ShardReader:
    """Samples of packed shards: a `SampleReader`."""

    def __init__(self, files: ShardFiles, manifest: Manifest, components: list[str]) -> None:
        """components: the members of a sample that are wanted (`shards.extensions`)."""
        self._shards, self._manifest, self._components = files, manifest, components
        self._members: dict[int, Members] = {}
        self._files: OrderedDict[int, int] = OrderedDict()

    def stage(self, shards: Iterable[int]) -> None:
        """See `ShardFiles.stage`."""
        self._shards.stage(shards)

    def ahead(self, piece: Piece) -> None:
        """Look the samples up in their shard's index, and have the kernel read them."""
        members = self._index(piece.shard)
        first, last = members.offset[piece.start].min(), members.offset[piece.stop - 1].max()
        with suppress(OSError):  # a hint, which not every file system takes
            size = int(last - first) + int(members.size[piece.stop - 1].max())
            os.posix_fadvise(self._file(piece.shard), int(first), size, os.POSIX_FADV_WILLNEED)

    def read(self, rows: np.ndarray, memory: Memory) -> Encoded:
        """Read samples: see `SampleReader`."""
        offset, size = self._locate(rows)
        reads = _reads(offset, size)
        data = memory.take(sum(int(length.sum()) for _, _, length in reads))
        place, position = np.empty_like(offset), 0
        for columns, first, length in reads:
            starts = position + np.cumsum(length) - length
            place[:, columns] = starts[:, None] + offset[:, columns] - first[:, None]
            self._fill(data, rows[:, 0], starts, first, length)
            position = int(starts[-1] + length[-1])
        return self._encoded(data, place, size)

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the wanted members of samples lie in their tars, and their bytes: int64 [N, components]."""
        offset = np.empty((len(rows), len(self._components)), np.int64)
        size = np.empty_like(offset)
        for shard in np.unique(rows[:, 0]).tolist():
            members, here = self._index(shard), rows[:, 0] == shard
            columns = [members.extensions.index(component) for component in self._components]
            offset[here] = members.offset[rows[here, 1]][:, columns]
            size[here] = members.size[rows[here, 1]][:, columns]
        return offset, size

    def _fill(
        self, data: np.ndarray, shards: np.ndarray, starts: np.ndarray, first: np.ndarray, length: np.ndarray
    ) -> None:
        """Read so many bytes of tars from `first` on, to `starts` in the data."""
        view = memoryview(data)  # type: ignore[arg-type]
        for shard, start, begin, count in zip(
            shards.tolist(), starts.tolist(), first.tolist(), length.tolist(), strict=True
        ):
            file, end = self._file(shard), start + count
            while start < end:
                done = os.preadv(file, [view[start:end]], begin)
                if not done:
                    raise UserError(
                        f"{self._shards.tar(shard)}: ends before byte {begin + end - start}; {REMEDY}"
                    )
                start, begin = start + done, begin + done

    def _encoded(self, data: np.ndarray, place: np.ndarray, size: np.ndarray) -> Encoded:
        def files(component: str) -> list[np.ndarray]:
            column = self._components.index(component)
            bounds = zip(place[:, column].tolist(), size[:, column].tolist(), strict=True)
            return [data[start : start + length] for start, length in bounds]

        def table(component: str) -> np.ndarray | None:
            return np.stack(files(component)) if component in self._components else None

        tiles, digits = table("tile"), table("cls")
        assert digits is not None
        return Encoded(
            photos=files("jpg"),
            labels=_labels(digits, len(self._manifest.classes)),
            masks=table("mask"),
            tiles=None if tiles is None else tiles.view("<i4").reshape(-1, NUMBERS),
            tile_photos=files("tile.jpg") if "tile.jpg" in self._components else None,
        )

    def _index(self, shard: int) -> Members:
        if shard not in self._members:
            self._members[shard] = read_members(self._shards.index(shard), self._manifest, shard)
        return self._members[shard]

    def _file(self, shard: int) -> int:
        """Descriptor of a tar; of those open the one that was used least recently is closed."""
        if shard not in self._files:
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            self._files[shard] = os.open(self._shards.tar(shard), os.O_RDONLY)
        self._files.move_to_end(shard)
        return self._files[shard]

    def release(self, shard: int) -> None:
        """Close a tar, and forget its index."""
        self._members.pop(shard, None)
        if (file := self._files.pop(shard, None)) is not None:
            os.close(file)
        self._shards.release(shard)

    def interrupt(self) -> None:
        """Have `read` wait no longer for files: it raises an error."""
        self._shards.close()

    def close(self) -> None:
        """Close all tars."""
        for shard in list(self._files):
            self.release(shard)
        self._shards.close()


def _reads(offset: np.ndarray, size: np.ndarray) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """The reads that bring members of samples: columns, where they begin and how many bytes they are, int64
    [N]. Members that lie close together are read at once."""
    columns = np.argsort(offset[0]).tolist()
    groups = [[columns[0]]]
    for before, column in pairwise(columns):
        gap = offset[:, column] - offset[:, before] - size[:, before]
        if (gap < 0).any() or gap.max() > _GAP:
            groups.append([])
        groups[-1].append(column)
    reads = []
    for group in groups:
        first = offset[:, group[0]]
        reads.append((group, first, offset[:, group[-1]] + size[:, group[-1]] - first))
    return reads


def _labels(digits: np.ndarray, classes: int) -> np.ndarray:
    """Decimal text uint8 [N, digits] -> int64 [N], each below `classes`."""
    numbers = digits.astype(np.int64) - ord("0")
    labels = numbers @ 10 ** np.arange(numbers.shape[1] - 1, -1, -1)
    wrong = ((numbers < 0) | (numbers > 9)).any(axis=1) | (labels >= classes)
    if wrong.any():
        raise UserError(f"the label of photo {int(np.argmax(wrong))} of the batch is none of {classes}")
    return labels
