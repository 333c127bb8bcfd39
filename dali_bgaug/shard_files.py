"""Files of packed shards: where they lie, or copies of those in an object store, made ahead of reading."""

import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from dali_bgaug import storage
from dali_bgaug.cache import Cache, Fetch
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest
from dali_bgaug.shard_index import REMEDY
from dali_bgaug.shards import MANIFEST, Manifest
from dali_bgaug.storage import Stat
from dali_bgaug.workers import Workers

DOWNLOADS = 8
"""Files that a rank copies at a time."""


class CacheOptions(NamedTuple):
    """Where copies of shards in an object store are kept."""

    folder: Path = Path(tempfile.gettempdir()) / "dali_bgaug_cache"
    """A folder of this machine."""
    gigabytes: float = 100.0
    """Of all copies together, for all ranks of the machine."""


class ShardFiles(Protocol):
    """A set's tars and indices as files of this machine."""

    def tar(self, number: int) -> Path:
        """The path of a shard's tar, which stays until the shard is released."""

    def index(self, number: int) -> Path:
        """The path of a shard's index, likewise."""

    def has(self, number: int) -> bool:
        """Whether a shard's files need not be waited for."""

    def stage(self, numbers: Iterable[int]) -> None:
        """Say which shards will be read, in this order, some time."""

    def release(self, number: int) -> None:
        """Say that a shard is not read any more, for now."""

    def close(self) -> None:
        """Release all."""


class LocalFiles:
    """Files of a folder: `ShardFiles`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest

    def tar(self, number: int) -> Path:
        """Where it lies."""
        return self._folder / self._manifest.shards[number].name

    def index(self, number: int) -> Path:
        """Where it lies."""
        return self._folder / self._manifest.shards[number].index

    def has(self, number: int) -> bool:
        """They are here, or lost."""
        return True

    def stage(self, numbers: Iterable[int]) -> None:
        """They are here."""

    def release(self, number: int) -> None:
        """It stays."""

    def close(self) -> None:
        """Nothing is held."""


class StagedFiles:
    """Copies of files in an object store: `ShardFiles`.

    Copies are compared with the manifest's checksums when they are made.
    """

    def __init__(self, url: str, manifest: Manifest, there: dict[str, Stat], options: CacheOptions) -> None:
        """there: what the store has, by name (`find_objects`)."""
        self._url, self._manifest, self._there = url, manifest, there
        self._cache = Cache(options.folder, int(options.gigabytes * 1e9))
        self._key = digest(url, manifest.digest)[:16]
        self._threads = Workers(DOWNLOADS, "stage")

    def tar(self, number: int) -> Path:
        """Waits until it is copied."""
        return self._cache.hold(*self._copies(number)[1])

    def index(self, number: int) -> Path:
        """Waits until it is copied."""
        return self._cache.hold(*self._copies(number)[0])

    def _copies(self, number: int) -> list[tuple[str, int, Fetch]]:
        """The copies of a shard's index and tar: name in the cache, bytes, and what makes it."""
        shard = self._manifest.shards[number]
        files = ((shard.index, shard.index_sha256), (shard.name, shard.sha256))
        return [
            (f"{self._key}-{name}", self._there[name].size, partial(self._fetch, name, sha256))
            for name, sha256 in files
        ]

    def _fetch(self, name: str, sha256: str, path: Path) -> None:
        url, found = storage.join(self._url, name), self._there[name]
        storage.download(url, path, sha256=sha256, found=found, proceed=self._cache.check_open)

    def has(self, number: int) -> bool:
        """Whether they were copied."""
        return all(self._cache.has(name) for name, _, _ in self._copies(number))

    def stage(self, numbers: Iterable[int]) -> None:
        """Have them copied in the background, as room allows."""
        for number in numbers:
            for copy in self._copies(number):
                self._threads.submit(self._cache.bring, *copy)

    def release(self, number: int) -> None:
        """Its copies may be removed."""
        for name, _, _ in self._copies(number):
            self._cache.release(name)

    def close(self) -> None:
        """End the threads that copy, and release all."""
        self._cache.close()
        self._threads.close()


def find_objects(url: str, manifest: Manifest) -> dict[str, Stat]:
    """What an object store has below a URL, by name.

    Raises:
        UserError: a file of the set is missing, or has another size.
    """
    there = storage.listing(url)
    for shard in manifest.shards:
        for name in (shard.name, shard.index):
            if name not in there:
                raise UserError(f"{storage.join(url, name)}: missing, but {MANIFEST} lists it; {REMEDY}")
        if there[shard.name].size != shard.bytes:
            raise UserError(
                f"{storage.join(url, shard.name)}: {there[shard.name].size} bytes, but {MANIFEST} says "
                f"{shard.bytes}: changed or cut short after packing; {REMEDY}"
            )
    return there
