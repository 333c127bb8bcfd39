"""Places of stores and shards: folders, or prefixes of an object store that are worked on in a folder.

    scratch/out/HASH/NAME/    what is being written to URL: each file is uploaded whole once it is finished,
                              and removed; what a killed upload left is uploaded by the next run
    scratch/in/HASH/NAME/     what is read from URL: copies, which a later run takes if they are current
    scratch/outlines/…        the same without maps and JPEGs

HASH is the URL's.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from dali_bgaug import storage, stores
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest, write_text
from dali_bgaug.hdf5 import download_outline
from dali_bgaug.storage import Location, Stat

SCRATCH = Path(tempfile.gettempdir()) / f"dali_bgaug-{os.getuid()}"
CONNECTIONS = 16
"""Requests at a time, where there are many small ones."""


def _scratch(url: str, scratch: Path, use: str) -> Path:
    parent, _, name = url.rpartition("/")
    if parent.endswith("/"):
        raise UserError(f"{url}: a whole bucket; give a prefix in it, {url}/NAME")
    return scratch / use / digest(url)[:12] / name


@dataclass(frozen=True)
class Output:
    """A folder that files are written to, or a prefix of an object store by way of a folder."""

    folder: Path
    """Where files are made."""
    url: str | None = None
    """Where they go; None: they stay."""

    def __str__(self) -> str:
        return self.url or str(self.folder)

    @property
    def parent(self) -> "Output":
        """What it lies in."""
        return Output(self.folder.absolute().parent, self.url and self.url.rpartition("/")[0])

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of the files in it, or in a folder of it, by name."""
        if self.url:
            there = storage.listing(storage.join(self.url, below) if below else self.url)
            return {name: stat.size for name, stat in there.items()}
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((self.folder / below).iterdir()):
                with contextlib.suppress(FileNotFoundError):  # another part renames its file
                    found[path.name] = path.stat().st_size
        return found

    def read(self, name: str) -> bytes | None:
        """Content of a small file; None if it is not there."""
        if self.url:
            url = storage.join(self.url, name)
            return storage.read(url) if storage.find(url) else None
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def file(self, name: str, *before: str) -> Iterator[Path]:
        """The path of a file while it is looked at, or made if it is not there; once the block ends it is
        where it goes, after the files of the names `before`.

        Of a finished file in an object store only the outline lies at the path (`hdf5.download_outline`).
        """
        path = self.folder / name
        if self.url is None:
            yield path
            return
        url = storage.join(self.url, name)
        finished = storage.find(url)
        if finished:
            fetch = download_outline if path.suffix == ".h5" else storage.download
            fetch(url, path, found=finished)
        try:
            yield path
        except UserError as error:
            if not finished or str(path) not in str(error):
                raise
            raise UserError(str(error).replace(str(path), url)) from error
        finally:
            if finished:
                path.unlink(missing_ok=True)
        if not finished:
            self.publish(*before, name)

    def publish(self, *names: str) -> None:
        """Bring files to where they go, in this order; those that were not made are none."""
        if self.url is None:
            return
        made = [name for name in names if (self.folder / name).exists()]
        for name in made:
            storage.upload(self.folder / name, storage.join(self.url, name))
        for name in reversed(made):  # the last says that the others are finished
            (self.folder / name).unlink()

    def remove(self, names: Sequence[str]) -> None:
        """Delete files; those that are gone are as good."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(self._remove, names))

    def remove_folder(self, name: str) -> None:
        """Delete a folder of files."""
        if self.url:
            self.remove([f"{name}/{below}" for below in self.sizes(name)])
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _remove(self, name: str) -> None:
        if self.url:
            storage.delete(storage.join(self.url, name))
        (self.folder / name).unlink(missing_ok=True)


def open_output(location: Location, scratch: Path) -> Output:
    """What a tool writes to."""
    if isinstance(location, Path):
        return Output(location)
    return Output(_scratch(location, scratch, "out"), location)


@dataclass(frozen=True)
class Store:
    """A mask or tile store that is read: a folder, or copies of what lies in an object store."""

    folder: Path
    """Its files, of an object store their outlines (`hdf5.download_outline`)."""
    url: str | None = None
    scratch: Path = SCRATCH
    found: Mapping[str, Stat] = field(default_factory=dict)
    """The objects that are copied, by name: what is replaced by another from now on is an error."""

    def with_rows(self, files: Iterable[Path]) -> tuple[Path, ...]:
        """The same files with their maps or JPEGs; of an object store all are copied now."""
        if self.url is None:
            return tuple(files)
        folder = _scratch(self.url, self.scratch, "in")
        self._copy_to(folder, storage.download)
        return tuple(folder / file.name for file in files)

    def _copy_to(self, folder: Path, download: Callable[..., object]) -> None:
        todo = [name for name in self.found if not self._is_current(folder / name)]
        if not todo:
            return
        bar = tqdm(total=len(todo), desc=f"copying {self.url}", unit="file", dynamic_ncols=True)
        with bar, ThreadPoolExecutor(CONNECTIONS) as pool:
            try:
                for _ in pool.map(lambda name: self._copy(folder / name, download), todo):
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _is_current(self, path: Path) -> bool:
        try:
            return Stat(path.stat().st_size, _note(path).read_text(encoding="utf-8")) == self.found[path.name]
        except FileNotFoundError:
            return False

    def _copy(self, path: Path, download: Callable[..., object]) -> None:
        _note(path).unlink(missing_ok=True)
        download(storage.join(str(self.url), path.name), path, found=self.found[path.name])
        write_text(_note(path), self.found[path.name].etag)


def _note(path: Path) -> Path:
    """The file that says of which object a copy is, by its ETag."""
    return path.with_name(f"{path.name}.copied")


def open_store(location: Location, option: str, scratch: Path, part: slice = slice(None)) -> Store:
    """A store that is read; of an object store the outlines of its files are copied.

    part: which of its files are needed.

    Raises:
        UserError: no store, one whose files are not all there, or of two stores.
    """
    if isinstance(location, Path):
        return Store(location)
    listed = storage.listing(location)
    names = stores.expected_names(listed, f"{option}={location}", part)
    folder = _scratch(location, scratch, "outlines")
    for path in [*folder.glob("*.h5"), *_scratch(location, scratch, "in").glob("*.h5")]:
        if path.name not in listed:  # of a store that was there before
            path.unlink(missing_ok=True)
    store = Store(folder, location, scratch, {name: listed[name] for name in names[part]})
    store._copy_to(folder, download_outline)
    return store


@contextmanager
def originals_named(locations: Sequence[object], scratch: Path) -> Iterator[None]:
    """Errors of the block name what was read from an object store, not the copies of it."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for location in locations:
            if isinstance(location, str):
                for use in ("in", "outlines"):
                    text = text.replace(str(_scratch(location, scratch, use)), location)
        if text == str(error):
            raise
        raise UserError(f"{text} (read by way of a copy in {scratch})") from error
