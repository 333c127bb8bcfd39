"""Files that are either whole or absent, and their checksums."""

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dali_bgaug.errors import UserError

_SPACE = "what is finished is kept: free some space and run the same command again"
_PLACE = "give a folder you may write to"
_MEND = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _PLACE,
    errno.EROFS: _PLACE,
    errno.EEXIST: _PLACE,
    errno.ENOTDIR: _PLACE,
}


class DiskFull(UserError):
    """No space left, or the quota is used up."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block ends without an error.

    The data is on the disk before the name is (fsync, rename, fsync of the folder), so a reader never sees
    half a file, not even after a power cut. On an error the temporary file is removed; after kill -9 it
    stays as `NAME.HOST-PID.tmp` and the next writer of the same path on that machine removes it. Two that
    write the same path at once (a job that was put in the queue again while it still ran) do not touch each
    other's.
    """
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _MEND:
            kind = DiskFull if _MEND[error.errno] is _SPACE else UserError
            raise kind(
                f"{path}: cannot be written ({os.strerror(error.errno)}); {_MEND[error.errno]}"
            ) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    """Remove what writers of `path` left that are no longer alive on this machine."""
    start = f"{path.name}.{socket.gethostname()}-"
    for name in os.listdir(path.parent):
        if name.startswith(start) and name.endswith(".tmp"):
            pid = name.removeprefix(start).removesuffix(".tmp")
            if not Path("/proc", pid).exists():
                (path.parent / name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def require_folder(path: Path, option: str) -> Path:
    """Return `path` if it is a folder, else raise a UserError that names the option it came from."""
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"{option}={path}: {what}; give the path of an existing folder")
    return path
