"""Files that are either whole or absent, and their checksums."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dali_bgaug.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block ends without an error.

    The data is on the disk before the name is (fsync, rename, fsync of the folder), so a reader never sees
    half a file, not even after a power cut. On an error the temporary file is removed; after kill -9 it
    stays as `NAME.tmp` and the next writer of the same path replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"{path}: no space left on the device; what is finished is kept: "
                "free some space and run the same command again"
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
