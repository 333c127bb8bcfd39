"""Object stores: whole objects that are read, downloaded, uploaded and deleted, by URL.

    s3://bucket/prefix/name     by s3fs; other stores (gs://, …) as fsspec knows them
    /folder/name                a path of a file system, which is a `Path` and never comes here

A place that may be either is a `Location`: text with a scheme is a URL and stays text, since `Path` would
make `s3:/bucket` of it. Objects are written whole, so nobody sees half of one. Every request is tried again
after transient faults (`retries.py`), as `RETRIES` says, and ends in a UserError that names the URL.

Credentials, region and endpoint (AWS_ENDPOINT_URL) are those that the store's own tools read. s3fs works in a
thread of its own, which a forked child has not: connections are of one process, and a child opens others.
"""

import hashlib
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from dali_bgaug.retries import Retries, answer, changed, retried

Location = Path | str
"""A folder or file: a path, or a URL as text."""
L = TypeVar("L", Path, str, Location)

RETRIES = Retries()
BLOCK = 16 << 20
"""Bytes of a download that are asked for at a time: what a cut connection loses."""
SMALL = 64 << 20

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_COLLAPSED = re.compile(r"(s3|s3a|gs|gcs|az|abfs):/(?!/)")


class Stat(NamedTuple):
    """What is known of an object without reading it."""

    size: int
    """Bytes."""
    etag: str
    """Changes with the object's content."""


def is_remote(location: Location) -> bool:
    """Whether a location is a URL."""
    return isinstance(location, str) and _URL.match(location) is not None


def location(text: str) -> Location:
    """A URL, without a slash at its end, or a path, of text from a command line.

    Raises:
        UserError: a URL without a bucket, or that lost a slash.
    """
    if _COLLAPSED.match(text):
        raise UserError(f"{text}: a URL has two slashes after its scheme: {text.replace(':/', '://', 1)}")
    if not is_remote(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    if not rest.strip("/") or rest.startswith("/"):
        raise UserError(f"{text}: names no bucket; give {scheme}://BUCKET/PREFIX")
    return text.rstrip("/")


def join(place: L, name: str) -> L:
    """The location of a name below another; `place` is a path or a URL."""
    return place / name if isinstance(place, Path) else f"{place}/{name}"


def stat(url: str) -> Stat:
    """Size and ETag of an object; UserError if there is none."""
    files, path = _open(url)
    info = retried(lambda: files.info(path), url, "read", RETRIES)
    if info["type"] != "file":
        raise UserError(f"{url}: a prefix, not an object; check the URL")
    return _stat(info)


def find(url: str) -> Stat | None:
    """Size and ETag of an object, if there is one."""
    files, path = _open(url)

    def ask() -> dict[str, Any] | None:
        try:
            return dict(files.info(path))
        except FileNotFoundError as error:
            _refuse_bucket(error)
            return None

    info = retried(ask, url, "looked for", RETRIES)
    return _stat(info) if info and info["type"] == "file" else None


def size(url: str) -> int:
    """Bytes of an object; UserError if there is none."""
    return stat(url).size


def listing(url: str) -> dict[str, Stat]:
    """The objects directly below a prefix, by name, sorted; none if there is no such prefix."""
    files, path = _open(url)

    def ask() -> list[dict[str, Any]]:
        try:
            return list(files.ls(path, detail=True))
        except FileNotFoundError as error:
            _refuse_bucket(error)
            return []

    found = retried(ask, url, "listed", RETRIES)
    begin = f"{path}/"
    below = {
        info["name"].removeprefix(begin): _stat(info)
        for info in found
        if info["type"] == "file" and info["name"].startswith(begin)
    }
    return {name: below[name] for name in sorted(below) if name}


def read(url: str, limit: int = SMALL) -> bytes:
    """A small object's content; UserError if there is none, or of more than `limit` bytes."""
    found = stat(url)
    if found.size > limit:
        raise UserError(f"{url}: {found.size} bytes, at most {limit} were expected; check the URL")
    return read_range(url, 0, found.size, found)


def read_range(url: str, start: int, stop: int, found: Stat) -> bytes:
    """Bytes start to stop of an object, as `stat` found it.

    Raises:
        UserError: it is another object by now.
    """
    if start >= stop:
        return b""
    files, path = _open(url)

    def ask() -> bytes:
        data = _get(files, path, start, stop, found.etag)
        if len(data) < stop - start:
            raise ConnectionError(f"{len(data)} of {stop - start} bytes came")
        return data

    data = retried(ask, url, "read", RETRIES)
    if not _is_s3(files) and stat(url) != found:
        raise changed(url)
    return data


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    found: Stat | None = None,
    proceed: Callable[[], None] = lambda: None,
) -> None:
    """Copy an object into a file, atomically; after a cut connection it goes on where it was.

    Args:
        url: the object.
        target: the file.
        size: bytes, where they are known.
        sha256: its SHA-256 in hex, where it is known.
        found: what `stat` or `listing` found, where that is known; it must still be so.
        proceed: called before each block; what it raises ends the download.

    Raises:
        UserError: no such object; another size or hash; it changed meanwhile; the disk is full.
    """
    found = found or stat(url)
    if size is not None and found.size != size:
        raise UserError(f"{url}: {found.size} bytes, not the {size} that were written; {_REMEDY}")
    digest = hashlib.sha256()
    with atomic(target) as temporary:
        with temporary.open("wb") as file:
            for start in range(0, found.size, BLOCK):
                proceed()
                data = read_range(url, start, min(start + BLOCK, found.size), found)
                file.write(data)
                if sha256 is not None:
                    digest.update(data)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UserError(f"{url}: its SHA-256 is not that of what was written; {_REMEDY}")


_REMEDY = "it was replaced or damaged: upload it again from where it was made, or make it anew"


def upload(source: Path, url: str) -> None:
    """Write a finished file as an object, whole: until all of it is there, what was there before is seen.

    Raises:
        UserError: it cannot be written, or has another size after.
    """
    files, path = _open(url)
    count = source.stat().st_size
    retried(lambda: files.put_file(str(source), path), url, "written", RETRIES)
    if (there := size(url)) != count:
        raise UserError(f"{url}: has {there} bytes after {count} were written; see what else writes there")


def delete(url: str) -> None:
    """Delete an object; one that is not there is as good."""
    files, path = _open(url)

    def ask() -> None:
        try:
            files.rm_file(path)
        except FileNotFoundError as error:
            _refuse_bucket(error)

    retried(ask, url, "deleted", RETRIES)


def _refuse_bucket(error: FileNotFoundError) -> None:
    """Raise an error again if not the object is missing, but the bucket."""
    if answer(error)[1] == "NoSuchBucket":
        raise error


def _stat(info: dict[str, Any]) -> Stat:
    etag = info.get("ETag") or info.get("etag") or sorted(info.items())
    return Stat(int(info["size"]), str(etag))


def _is_s3(files: Any) -> bool:
    return "s3" in files.protocol


def _get(files: Any, path: str, start: int, stop: int, etag: str) -> bytes:
    """A range of bytes; of S3 only if the object still has the ETag, elsewhere of whatever is there."""
    if not _is_s3(files):
        return bytes(files.cat_file(path, start=start, end=stop))
    from fsspec.asyn import sync

    async def get() -> bytes:
        bucket, key, _ = files.split_path(path)
        where = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        answer = await files._call_s3("get_object", **where, IfMatch=etag)
        try:
            return bytes(await answer["Body"].read())
        finally:
            answer["Body"].close()

    return bytes(sync(files.loop, get))


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path of it in there."""
    files = _filesystem(url.partition("://")[0], RETRIES, os.getpid())
    return files, files._strip_protocol(url)


@lru_cache
def _filesystem(scheme: str, retries: Retries, process: int) -> Any:
    """Once a process: its connections and its thread are not its child's."""
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in ("s3", "s3a"):
        timeouts = {"connect_timeout": retries.connect_timeout, "read_timeout": retries.read_timeout}
        options["config_kwargs"] = {**timeouts, "retries": {"max_attempts": 0}}  # all tries are ours
    try:
        import fsspec

        files = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise UserError(f"{scheme}://: {error}; pip install 'dali_bgaug[cloud]'") from error
    except ValueError as error:
        raise UserError(
            f"{scheme}://: no object store of a known kind ({error}); give s3:// or gs://"
        ) from error
    if _is_s3(files):
        files.retries = 1
    return files
