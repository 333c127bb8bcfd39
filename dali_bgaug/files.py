"""Files that are either whole or absent, and their checksums."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from dali_bgaug.errors import UserError

_SPACE = "what is finished is kept: free some space and run the same command again (training: with --resume)"
_WRITABLE = "give a folder you may write to"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _WRITABLE,
    errno.EROFS: _WRITABLE,
    errno.EEXIST: _WRITABLE,
    errno.ENOTDIR: _WRITABLE,
}
_NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_LONGEST_NAME = 256


class DiskFull(UserError):
    """No space left, or the quota is used up."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block ends without an error.

    The data is on the disk before the name is (fsync, rename, fsync of the folder), so a reader never sees
    half a file, not even after a power cut, as far as the file system offers it. On an error the temporary
    file is removed; after kill -9 it stays as `NAME.HOST-PID.tmp` and the next writer in the folder on that
    machine removes it. Two that write the same path at once (a job that was put in the queue again while it
    still ran) do not touch each other's.
    """
    temporary = _temporary(path)
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(path.parent)
            temporary.unlink(missing_ok=True)
            # A file of our own, not whatever a link of this name leads to.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    _sync(path.parent)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say what to do where the machine does not let `path` be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        kind = DiskFull if _REMEDIES[error.errno] is _SPACE else UserError
        raise kind(
            f"{path}: cannot be written ({os.strerror(error.errno)}); {_REMEDIES[error.errno]}"
        ) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def _sync(path: Path) -> None:
    """Have a file or folder written to the disk, where the file system can: some network file systems and
    FUSE's refuse it for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)


def _remove_stale(folder: Path) -> None:
    """Remove what writers in a folder left that are no longer alive on this machine."""
    temporary = re.compile(rf".*\.{re.escape(socket.gethostname())}-(\d+)\.tmp", re.DOTALL)
    for name in os.listdir(folder):
        if (found := temporary.fullmatch(name)) and not Path("/proc", found[1]).exists():
            (folder / name).unlink(missing_ok=True)


def write_pointer(path: Path, name: str) -> None:
    """Have `path` lead to the file `name` beside it: a symbolic link, or, where there are none (SMB, exFAT,
    object stores), a text file that holds the name (`follow`)."""
    temporary = _temporary(path)
    temporary.unlink(missing_ok=True)
    try:
        os.symlink(name, temporary)
    except OSError as error:
        if error.errno not in {*_NOT_OFFERED, errno.EPERM}:
            raise
        write_text(path, f"{name}\n")
    else:
        temporary.replace(path)


def follow(path: Path, names: re.Pattern[str]) -> Path:
    """The file that `write_pointer` has made `path` lead to, if it is of these names; else `path` itself."""
    if not path.is_symlink() and path.is_file() and path.stat().st_size < _LONGEST_NAME:
        text = path.read_bytes().decode("utf-8", "replace").removesuffix("\n")
        if names.fullmatch(text):
            return path.with_name(text)
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file for this process alone while the block runs; the file says who holds it, and is gone after.

    The kernel lets go of what a dead process held, on this machine or another. On a file system without
    locks nobody is held off.

    Raises:
        UserError: another process holds it.
    """
    new = not path.parent.exists()
    with contextlib.ExitStack() as stack:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _take(path, stack)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.truncate(0)
            file.write(f"{socket.gethostname()}, process {os.getpid()}, since {since}")
            file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if new:
                with contextlib.suppress(OSError):  # something is in it
                    path.parent.rmdir()


def _take(path: Path, stack: contextlib.ExitStack) -> TextIO:
    """Open and lock a file; `stack` closes it."""
    while True:
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read(_LONGEST_NAME) or "another process"
                raise UserError(
                    f"{path}: in use by {holder}; wait for it, stop it, or choose another folder"
                ) from None
            if error.errno not in {*_NOT_OFFERED, errno.ENOLCK}:
                raise
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file  # and not one that its holder has removed


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a result as JSON, atomically, with `digest`, a checksum of the rest."""
    values = json.loads(json.dumps({key: value for key, value in values.items() if key != "digest"}))
    # As it will be read: of keys that are numbers JSON makes text, which sorts otherwise.
    write_text(path, json.dumps(values | {"digest": digest(values)}, indent=1) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_json` wrote; files without a digest, of before there was one, are read as they are.

    remedy: what an error says is to be done.

    Raises:
        UserError: no such file, not JSON, or not as it was written.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, or no JSON ({type(error).__name__}); {remedy}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, not an object; {remedy}")
    said = values.pop("digest", None)
    if said is not None and said != digest(values):
        raise UserError(f"{path}: damaged or edited, its digest is not that of its content; {remedy}")
    return values


def digest(*values: Any) -> str:
    """SHA-256, in hex, of JSON-serialisable values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The whole lines of a run's log.jsonl, and the numbers, from 1, of those that are damaged.

    A last line that is not whole is being written, or was when its writer was killed, and is left out. No
    file is an empty one.
    """
    if not path.exists():
        return [], []
    lines, damaged = [], []
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, text in enumerate(texts, 1):
        try:
            values = json.loads(text)
            if not isinstance(values["step"], int):
                raise TypeError
            lines.append(values)
        except (ValueError, KeyError, TypeError):
            if number < len(texts):
                damaged.append(number)
    return lines, damaged


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
