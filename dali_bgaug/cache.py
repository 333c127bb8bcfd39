"""A folder of bounded size that keeps copies of remote files, shared by the processes of a machine.

    NAME             a whole file; a process that reads it holds a shared lock on it
    NAME.coming      a file that is being copied: as large as it will be, locked by who copies it
    .room            locked while room is made; says how many bytes are in use at most

Nobody removes a file that is held. Room for what is fetched ahead is made of files that were let go, or lie
there from before; a file that is needed now may take that of any that nobody holds. Locks are the kernel's
(flock), so a process that was killed leaves none behind, and a copy is whole before it has its name.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dali_bgaug.errors import UserError

Fetch = Callable[[Path], None]
"""Writes a file, atomically."""

_MARK = ".coming"
_LET_GO = 1.0
"""Time of change that says that nobody needs a file any more, for now: the beginning of 1970."""
_POLL_S = 0.05
_FULL_S = 2.0
_SPARE = 50
"""One part of so many is freed at a time, as far as nobody needs what is there."""
_PATIENCE_S = 600.0


class CacheClosed(Exception):
    """The cache was closed while a file was waited for."""


class Cache:
    """Local copies of files, for one process of several."""

    def __init__(self, folder: Path, limit: int) -> None:
        """limit: bytes of all files."""
        self._folder, self._limit = folder, limit
        self._held: dict[str, int] = {}
        self._closing, self._began = threading.Event(), time.time()
        self._look_at = 0.0
        """When room for what is fetched ahead is looked for again: others may have let go of some."""
        folder.mkdir(parents=True, exist_ok=True)

    def hold(self, name: str, size: int, fetch: Fetch) -> Path:
        """The path of a file, which is fetched if it is not there, and stays until it is released.

        Raises:
            UserError: it cannot be fetched, or there is no room for it.
        """
        while name not in self._held and not self._take(name, size):
            self._bring(name, size, fetch, urgent=True)
        return self._folder / name

    def bring(self, name: str, size: int, fetch: Fetch) -> None:
        """Fetch a file, if it is not there, once there is room."""
        self._bring(name, size, fetch, urgent=False)

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self._folder / name).exists()

    def release(self, name: str) -> None:
        """Let go of a file."""
        if (file := self._held.pop(name, None)) is not None:
            with suppress(OSError):
                os.utime(file, (_LET_GO, _LET_GO))
            os.close(file)
            self._look_at = 0.0

    def close(self) -> None:
        """Let go of all files, and have nobody wait any longer."""
        self._closing.set()
        for name in list(self._held):
            self.release(name)

    def _take(self, name: str, size: int) -> bool:
        """Hold a file, if it is there and whole."""
        path = self._folder / name
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        with suppress(BlockingIOError):  # it is being removed
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            current, whole = _is(path, file), os.fstat(file).st_size == size
            if current and whole:
                os.utime(file)
                self._held[name] = file
                return True
            if current:
                path.unlink(missing_ok=True)  # not as it was fetched
        os.close(file)
        return False

    def _bring(self, name: str, size: int, fetch: Fetch, urgent: bool) -> None:
        path, start = self._folder / name, time.monotonic()
        while True:
            # Its mark is not kept while room is waited for: another may need the file now.
            with self._alone(path.with_name(name + _MARK)) as mark:
                if path.exists():
                    return
                if (urgent or time.monotonic() >= self._look_at) and self._reserve(mark, size, urgent):
                    return fetch(path)
            if urgent and time.monotonic() > start + _PATIENCE_S:
                raise UserError(
                    f"{self._folder}: files in use fill its {self._limit / 1e9:g} GB; give more "
                    "(data.cache_gb), or take a smaller data.shuffle_buffer"
                )
            self._pause()

    @contextmanager
    def _alone(self, path: Path) -> Iterator[BinaryIO]:
        """Hold a mark alone while the block runs; it is gone after."""
        with self._locked(path) as mark:
            try:
                yield mark
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[BinaryIO]:
        """Wait for a file that nobody else has locked."""
        while True:
            with path.open("a+b") as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is(path, file.fileno()):
                    yield file
                    return
            self._pause()

    def check_open(self) -> None:
        """Raise CacheClosed once the cache is closed."""
        if self._closing.is_set():
            raise CacheClosed

    def _pause(self) -> None:
        self._closing.wait(_POLL_S)
        self.check_open()

    def _reserve(self, mark: BinaryIO, size: int, urgent: bool) -> bool:
        """Make room for a file, and have its mark say so; whether there is room."""
        with self._locked(self._folder / ".room") as room:
            self.check_open()
            room.seek(0)
            text = room.read()
            used = int(text) if text.isdigit() else self._limit
            if used + size > self._limit:
                used = self._free(size, urgent)
            if free := used + size <= self._limit:
                mark.truncate(size)
                used += size
            room.truncate(0)
            room.write(b"%d" % used)
        if not free:  # all files are looked at for room, and several threads wait for some
            self._look_at = time.monotonic() + _FULL_S
        return free

    def _free(self, size: int, urgent: bool) -> int:
        """Remove files until so many bytes are free, if that many may be removed, and some more of those that
        nobody needs, so that all are not looked at for every file; the bytes in use then."""
        files, used = [], 0
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                path, status = Path(entry.path), entry.stat()
                if path.suffix == _MARK and _remove(path):  # of a process that was killed
                    continue
                if path.suffix == ".tmp" or path.name == ".room":  # what is being written its mark counts
                    continue
                used += status.st_size
                if path.suffix != _MARK:
                    files.append((status.st_mtime, status.st_size, path))
        spare = self._limit - self._limit // _SPARE
        for changed, its, path in sorted(files, key=self._when_needed, reverse=True):
            idle, fits = changed < self._began, used + size <= self._limit
            if fits and not (idle and used + size - its >= spare):
                break
            if (urgent or idle) and _remove(path):
                used -= its
        return used

    def _when_needed(self, file: tuple[float, int, Path]) -> tuple[bool, float]:
        """The larger the later: files let go or of before, the oldest last; then those fetched last."""
        changed = file[0]
        return (True, -changed) if changed < self._began else (False, changed)


def _is(path: Path, file: int) -> bool:
    """Whether an open file is the one that has this path."""
    with suppress(FileNotFoundError):
        return path.stat().st_ino == os.fstat(file).st_ino
    return False


def _remove(path: Path) -> bool:
    """Remove a file that nobody holds; whether it was one."""
    with suppress(FileNotFoundError), path.open("rb") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False
