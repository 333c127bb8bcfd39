"""HDF5 files with checksums, looked at before HDF5 reads a file: over a damaged one it may take for ever.

After HDF5's own data, which it knows the end of, a file has a trailer of 56 bytes:

    MAGIC           8 bytes
    start, bytes    int64 each, little-endian: where the rows are (maps, JPEGs), one after the other
    digest          SHA-256 of everything before it but the rows

Rows are most of a file and are read one by one; dataset `crc`, uint32 [N], has the CRC-32 of each.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from dali_bgaug import storage
from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from dali_bgaug.storage import Stat

REMEDY = "delete that file and run its tool again"
_MAGIC = b"bgaug-h1"
_PLACE = struct.Struct("<8sqq")
_DIGEST = hashlib.sha256().digest_size
_END_ADDRESS = 40
"""Offset in a file of HDF5's first format, which h5py writes, of where it ends: uint64."""


@contextmanager
def written(path: Path, rows: str | None = None) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory; write it atomically, with its checksum, once the block ends.

    HDF5 itself, on a full disk, fails with errors of many kinds, some after it said that all was well.

    rows: the dataset whose rows have checksums of their own (`row_checksums`).
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        start, size = 0, 0
        if rows and file[rows].size:
            start, size = file[rows].id.get_offset(), file[rows].nbytes
        image = memoryview(file.id.get_file_image())
    with atomic(path) as temporary, temporary.open("wb") as out:
        out.write(image)
        place = _PLACE.pack(_MAGIC, start, size)
        out.write(place)
        digest = hashlib.sha256(image[:start])
        digest.update(image[start + size :])
        digest.update(place)
        out.write(digest.digest())


def row_checksums(rows: Iterable[bytes | np.ndarray]) -> np.ndarray:
    """Checksums of rows, for dataset `crc`: uint32 [N]."""
    return np.array([zlib.crc32(row if isinstance(row, bytes) else row.data) for row in rows], np.uint32)


def check_row(path: Path, row: int, data: bytes, checksums: np.ndarray | None) -> bytes:
    """Refuse a row that is not as it was written; without checksums (older files) all are taken."""
    if checksums is not None and zlib.crc32(data) != checksums[row]:
        raise UserError(f"{path}: row {row} is damaged, its checksum is wrong; {REMEDY}")
    return data


def open_checked(path: Path) -> h5py.File:
    """Open a file for reading, whose checksum is that of its content.

    Files written before there were checksums are opened as they are.

    Raises:
        UserError: damaged, or no HDF5 file.
    """
    try:
        with path.open("rb") as file:
            damage = _damage(file, path.stat().st_size)
        if damage:
            raise UserError(f"{path}: {damage}; {REMEDY}")
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise UserError(
            f"{path}: not a readable HDF5 file ({error}); if the file itself is damaged, {REMEDY}"
        ) from error


def download_outline(url: str, target: Path, found: Stat) -> bool:
    """Copy a file from an object store without its rows: a hole of the same size is in their place.

    All but the rows can be read from it as from the file itself, and has its checksum. A file without rows,
    or of before there were checksums, is copied whole.

    Args:
        url: the file.
        target: the copy, which is written atomically.
        found: the object's size and ETag.

    Returns:
        Whether it was copied whole.
    """
    end = found.size - _PLACE.size - _DIGEST
    trailer = storage.read_range(url, max(0, end), found.size, found)
    start, rows = 0, 0
    if end >= 0 and trailer.startswith(_MAGIC):
        _, start, rows = _PLACE.unpack(trailer[: _PLACE.size])
    if min(start, rows - 1) < 0 or start + rows > end:
        storage.download(url, target, found=found)
        return True
    with atomic(target) as temporary, temporary.open("wb") as file:
        for begin, stop in ((0, start), (start + rows, end)):
            file.seek(begin)
            file.write(storage.read_range(url, begin, stop, found))
        file.seek(end)
        file.write(trailer)
    return False


def has_checksums(path: Path) -> bool:
    """Whether a file has a trailer."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _PLACE.size - _DIGEST))
        return file.read(len(_MAGIC)) == _MAGIC


def _damage(file: BinaryIO, size: int) -> str | None:
    """Damage of a file of so many bytes, or None."""
    head = file.read(_END_ADDRESS + 8)
    end = size - _PLACE.size - _DIGEST
    file.seek(max(0, end))
    trailer = file.read(_PLACE.size)
    if len(trailer) < _PLACE.size or not trailer.startswith(_MAGIC):
        said = int.from_bytes(head[_END_ADDRESS:], "little")
        return None if said == size else "damaged, cut short, or not a file of this project"
    _, start, rows = _PLACE.unpack(trailer)
    if start < 0 or rows < 0 or start + rows > end:
        return "damaged: its trailer is wrong"
    digest = hashlib.sha256()
    for begin, stop in ((0, start), (start + rows, end + _PLACE.size)):
        file.seek(begin)
        digest.update(file.read(stop - begin))
    return None if file.read(_DIGEST) == digest.digest() else "damaged: its checksum is not its content's"
