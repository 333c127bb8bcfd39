"""HDF5 mask and tile stores: the expensive offline artifacts, kept apart from the training stream.

A store is a folder of files `NNNNN-of-MMMMM.h5`, each written whole by one process. Photos are listed in
sorted order of their keys, so file i of the mask store and file i of the tile store hold the same photos.
Files are opened with `locking=False` (network file systems) and never kept across a fork.

mask file   saliency uint8 [N, S, S]  saliency map in 0..255, the photo stretched to a square
            box      int32 [N, 4]     xmin, ymin, xmax, ymax, half-open, of all foreground, original pixels
            size     int32 [N, 2]     width, height of the photo, EXIF orientation applied
            key      text  [N]        the photo's path relative to the photo folder
            flags    uint8 [N]        EMPTY, FULL_FRAME
            bytes    int64 [N]        size of the photo's file
            crc      uint32 [N]       checksum of the photo's saliency map (`hdf5.py`)
            left_out text  [M, 3]     path, reason, detail of photos that cannot be used and have no row
tile file   geometry int32 [N, 8]     box and strip (`tiles.py`); zeros for a photo that lends no background
            key, flags                as above
or          jpeg     uint8 [bytes]    all JPEGs one after the other
            offset   int64 [N + 1]    photo i's JPEG is jpeg[offset[i]:offset[i + 1]]; empty: it lends none
            crc      uint32 [N]       checksum of the photo's JPEG

Attributes say how a file was made: `options` (JSON), `version`, and `source`, a hash of what it was made
from, by which a second run knows a finished file from a stale one. `listing` is a hash of all photos that
were found, the same in all files of a mask store: machines that saw different photos cut them differently.
`stamps` is a hash of the files a tile file was made from, if its backgrounds were made elsewhere.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dali_bgaug.errors import UserError
from dali_bgaug.files import digest, require_folder
from dali_bgaug.hdf5 import REMEDY, check_row, open_checked, row_checksums, written
from dali_bgaug.shards import TileKind
from dali_bgaug.tiles import NUMBERS

VERSION = 3
READABLE = (2, 3)
"""Version 2 had no checksums."""
EMPTY, FULL_FRAME = 1, 2
"""Flags: no foreground at all; no strip of background large enough to tile. Neither is ever a donor."""

_COUNT = re.compile(r"-of-(\d{5,})\.h5$")
_TEXT = h5py.string_dtype("utf-8")


@dataclass(kw_only=True)
class Entries:
    """Entries of a mask file for its N photos, all but the saliency maps."""

    keys: list[str]
    box: np.ndarray
    size: np.ndarray
    flags: np.ndarray
    bytes: np.ndarray
    left_out: list[tuple[str, str, str]]
    """Photos that cannot be used: path, reason, detail."""
    options: dict[str, Any]
    source: str
    """Hash of what the file was made from (see `is_finished`)."""
    listing: str
    """Hash of the paths of all photos of the store."""


def level(threshold: float) -> int:
    """The least saliency, of 0..255, that counts as foreground at a threshold in (0, 1].

    An integer: comparing bytes with a float makes floats of them first.
    """
    return math.ceil(threshold * 255)


def file_name(index: int, count: int) -> str:
    """The name of file `index` of `count`."""
    return f"{index:05d}-of-{count:05d}.h5"


def list_files(folder: Path, option: str, part: slice = slice(None)) -> list[Path]:
    """A store's files, in order; anything missing or foreign is a UserError.

    part: which of them must be there already.
    """
    there = (path.name for path in require_folder(folder, option).iterdir())
    return [folder / name for name in expected_names(there, f"{option}={folder}", part)]


def expected_names(there: Iterable[str], where: str, part: slice = slice(None)) -> list[str]:
    """The names of all files of a store, in order, of which some are there; see `list_files`.

    where: the folder, as an error names it.
    """
    names = {name for name in there if name.endswith(".h5")}
    count = _COUNT.search(min(names)) if names else None
    if not count:
        raise UserError(f"{where}: no store files (*.h5) in it; run the tool that writes it first")
    expected = [file_name(i, int(count[1])) for i in range(int(count[1]))]
    if foreign := names - set(expected):
        raise UserError(f"{where}: holds files of two stores (e.g. {min(foreign)}); make it anew")
    if missing := set(expected[part]) - names:
        raise UserError(f"{where}: {min(missing)} is missing; run the tool that writes it again, to the end")
    return expected


def is_finished(path: Path, source: str) -> bool:
    """Whether `path` is a whole file made from `source`; a file made from something else is a UserError."""
    if not path.exists():
        return False
    with open_checked(path) as file:
        if file.attrs.get("source") != source or file.attrs.get("version") not in READABLE:
            raise UserError(
                f"{path}: made from other photos, masks, backgrounds or options than those given now; "
                "choose another --out, or delete that file (or the whole folder) to make it anew"
            )
    return True


def reject_foreign_files(there: Iterable[str], where: str, count: int) -> None:
    """A store of another number of files in the same folder would be mixed up with the new one.

    there, where: the names in the folder, and the folder, as an error names it.
    """
    known = {file_name(i, count) for i in range(count)}
    for name in sorted(there):
        if name.endswith(".h5") and name not in known:
            raise UserError(
                f"{where}/{name}: belongs to a store of other photos or another --per-file; "
                "choose another --out, or delete that folder to make it anew"
            )


def write_masks(path: Path, saliency: np.ndarray, entries: Entries) -> None:
    """Write one mask file atomically. saliency: uint8 [N, S, S]."""
    with written(path, rows="saliency") as file:
        file["saliency"], file["crc"] = saliency, row_checksums(saliency)
        file["box"], file["size"] = entries.box.astype(np.int32), entries.size.astype(np.int32)
        file["bytes"] = entries.bytes.astype(np.int64)
        left_out = np.array(entries.left_out, object).reshape(-1, 3)
        file.create_dataset("left_out", data=left_out, dtype=_TEXT)
        file.attrs["listing"] = entries.listing
        _write_common(file, entries.keys, entries.flags, entries.options, entries.source)


def write_tiles(
    path: Path,
    tiles: Sequence[bytes] | np.ndarray,
    keys: list[str],
    flags: np.ndarray,
    options: dict[str, Any],
    source: str,
    stamps: str = "",
) -> None:
    """Write one tile file atomically: as many JPEGs as keys, or geometry int32 [N, 8]."""
    with written(path, rows=None if isinstance(tiles, np.ndarray) else "jpeg") as file:
        file.attrs["stamps"] = stamps
        if isinstance(tiles, np.ndarray):
            file["geometry"] = tiles.astype(np.int32)
        else:
            file["crc"] = row_checksums(tiles)
            file["jpeg"] = np.frombuffer(b"".join(tiles), np.uint8)
            file["offset"] = np.cumsum([0, *map(len, tiles)], dtype=np.int64)
        _write_common(file, keys, flags, options, source)


def _write_common(
    file: h5py.File, keys: list[str], flags: np.ndarray, options: dict[str, Any], source: str
) -> None:
    file.create_dataset("key", data=keys, dtype=_TEXT)
    file["flags"] = flags.astype(np.uint8)
    file.attrs.update(options=json.dumps(options, sort_keys=True), version=VERSION, source=source)


def read_entries(path: Path) -> Entries:
    """Everything of a mask file but the maps."""
    with open_checked(path) as file:
        _require(path, file, "saliency", "box", "size", "key", "flags", "bytes", "left_out")
        return Entries(
            keys=list(file["key"].asstr()[:]),
            box=file["box"][:],
            size=file["size"][:],
            flags=file["flags"][:],
            bytes=file["bytes"][:],
            left_out=[tuple(item) for item in file["left_out"].asstr()[:]],
            options=json.loads(file.attrs["options"]),
            source=str(file.attrs["source"]),
            listing=str(file.attrs["listing"]),
        )


def count_rows(path: Path) -> int:
    """Photos of a file, of either store."""
    with open_checked(path) as file:
        _require(path, file, "key")
        return len(file["key"])


def read_keys(path: Path) -> list[str]:
    """The photos of a file, of either store."""
    with open_checked(path) as file:
        _require(path, file, "key")
        return list(file["key"].asstr()[:])


def tile_kind(path: Path) -> TileKind:
    """Kind of tiles in a tile file."""
    with open_checked(path) as file:
        if "geometry" in file:
            return "geometry"
        _require(path, file, "offset")
        return "pixels"


def tile_bytes(path: Path) -> np.ndarray:
    """The size of every tile of a tile file, int64 [N]."""
    with open_checked(path) as file:
        if "geometry" in file:
            return np.full(len(file["geometry"]), 4 * NUMBERS)
        _require(path, file, "offset")
        return np.diff(file["offset"][:])


class Source(NamedTuple):
    """Provenance of a file of either store."""

    source: str
    """Hash of what it was made from."""
    options: dict[str, Any]
    listing: str
    """Hash of the paths of all photos; empty for tiles."""
    stamps: str
    """Hash of the backgrounds made elsewhere that tiles are made from; else empty."""


def read_source(path: Path) -> Source:
    """Provenance of a file of either store."""
    with open_checked(path) as file:
        options = json.loads(file.attrs.get("options", "{}"))
        listing, stamps = (str(file.attrs.get(name, "")) for name in ("listing", "stamps"))
        return Source(str(file.attrs.get("source")), options, listing, stamps)


def tile_source(masks: str, options: dict[str, Any], stamps: str = "") -> str:
    """The `source` of tiles made from a mask file of the source `masks`."""
    return digest(masks, options, *([stamps] if stamps else []))


def _require(path: Path, file: h5py.File, *names: str) -> None:
    missing = [name for name in names if name not in file]
    if missing:
        raise UserError(f"{path}: has no '{missing[0]}'; it is not the store this tool reads")


class _Rows(NamedTuple):
    """Places of maps or tiles in a file."""

    start: int
    shape: tuple[int, ...]
    """Of the dataset."""
    offset: np.ndarray
    """Of each JPEG from `start`, int64 [N + 1]; of maps empty."""
    crc: np.ndarray | None
    """Their checksums, uint32 [N]; None in older files."""


class StoreReader:
    """Random access to single maps or tiles of a store; opens files in the process that reads.

    A shuffled shard touches every file of a store. HDF5 takes 1.5 ms to open one and keeps half a megabyte
    for it, so it is asked once a file where the data begins, and the data, which lies in one piece, is read
    past it.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._paths = list(files)
        self._where: dict[int, _Rows] = {}
        self._open: dict[int, int] = {}

    def _locate(self, index: int, name: str) -> "_Rows":
        if index not in self._where:
            path = self._paths[index]
            with open_checked(path) as file:
                _require(path, file, name)
                data = file[name]
                start = data.id.get_offset()
                if start is None and data.size:  # without data, all photos lend none, there is no place
                    raise UserError(
                        f"{path}: '{name}' is not stored in one piece; run the tool that writes it"
                    )
                self._where[index] = _Rows(
                    start or 0,
                    data.shape,
                    file["offset"][:] if name == "jpeg" else np.empty(0, np.int64),
                    file["crc"][:] if "crc" in file else None,
                )
        return self._where[index]

    def _read(self, index: int, start: int, count: int) -> bytes:
        if index not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[index] = os.open(self._paths[index], os.O_RDONLY)
        data = os.pread(self._open[index], count, start)
        if len(data) < count:
            raise UserError(f"{self._paths[index]}: cut short; {REMEDY}")
        return data

    def saliency(self, file: int, row: int) -> np.ndarray:
        """uint8 [S, S]; UserError if it is damaged."""
        rows = self._locate(file, "saliency")
        _, *shape = rows.shape
        count = math.prod(shape)
        data = self._read(file, rows.start + row * count, count)
        return np.frombuffer(check_row(self._paths[file], row, data, rows.crc), np.uint8).reshape(shape)

    def geometry(self, file: int, row: int) -> np.ndarray:
        """A tile's geometry, int32 [8]."""
        start = self._locate(file, "geometry").start
        return np.frombuffer(self._read(file, start + row * 4 * NUMBERS, 4 * NUMBERS), np.int32)

    def tile(self, file: int, row: int) -> bytes:
        """A tile's JPEG; UserError if it is damaged."""
        rows = self._locate(file, "jpeg")
        start, end = map(int, rows.offset[row : row + 2])
        data = self._read(file, rows.start + start, end - start)
        return check_row(self._paths[file], row, data, rows.crc)

    def __enter__(self) -> "StoreReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every file."""
        while self._open:
            os.close(self._open.popitem()[1])


OPEN_FILES = 300
"""Of a reader at a time: two readers stay below the 1024 files that a process may usually open."""
