"""Data sets that a loader reads: packed shards, or class folders of photos (`folder.py`)."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from dali_bgaug.decoding import DecodeOptions, Decoder, Problem
from dali_bgaug.folder import open_folder
from dali_bgaug.photo_tree import Oddity, describe
from dali_bgaug.samples import SampleReader
from dali_bgaug.shard_files import (
    CacheOptions,
    LocalFiles,
    ShardFiles,
    StagedFiles,
    find_objects,
)
from dali_bgaug.shard_index import locate_samples
from dali_bgaug.shard_reader import ShardReader
from dali_bgaug.shards import (
    MANIFEST,
    Manifest,
    TileKind,
    manifest_digest,
    open_shards,
    read_manifest,
    unpack_tile,
)
from dali_bgaug.storage import Location, Stat, join
from dali_bgaug.tiles import fits


class Dataset(Protocol):
    """Labelled photos in an order, by whatever they are kept in."""

    classes: list[str]
    """Names, by their numbers."""
    mask_size: int
    """Side of the masks in pixels; 0 without masks."""
    tiles: TileKind
    donors: int
    """Photos whose tile may be another's background."""
    max_pixels: int
    """Of a photo that may be read."""
    is_looked_into: bool
    """Whether EXIF blocks of all photos were looked at before, so that reading need not."""

    @property
    def sizes(self) -> Sequence[int]:
        """Photos of every shard."""

    @property
    def samples(self) -> int:
        """Number of photos."""

    @property
    def digest(self) -> str:
        """A hash of the content, which a loader's state remembers."""

    @property
    def oddities(self) -> Mapping[str, Oddity] | None:
        """Oddities met in listing files (`photo_tree.py`); None if none were listed."""

    def describe(self) -> str:
        """A summary for people."""

    def reader(self, components: list[str]) -> SampleReader:
        """A reader of the named components of samples (`shards.extensions`)."""

    def check(self) -> None:
        """Look again whether all is as it was when the set was opened, photos' bytes apart.

        Raises:
            UserError: it is not.
        """

    def damaged(self, rows: np.ndarray, options: DecodeOptions) -> list[Problem]:
        """Problems of samples, int64 [N, 2], shard and row; options: how they are decoded."""

    def explain(self, problems: list[str]) -> str:
        """A message of problems: what they mean, each of them, and what to do."""


class PackedShards:
    """Packed shards and their manifest: a `Dataset`."""

    oddities = None

    def __init__(self, place: Location, manifest: Manifest, cache: CacheOptions | None = None) -> None:
        """cache: where copies are kept of shards in an object store."""
        self.place, self.manifest = place, manifest
        self._cache = cache or CacheOptions()
        self.samples, self.classes = manifest.samples, manifest.classes
        self.mask_size, self.tiles, self.donors = manifest.mask_size, manifest.tiles, manifest.donors
        self.max_pixels, self.is_looked_into = manifest.max_pixels, manifest.is_looked_into
        self.sizes = [shard.samples for shard in manifest.shards]

    @property
    def is_remote(self) -> bool:
        """Whether the set lies in an object store."""
        return isinstance(self.place, str)

    @property
    def digest(self) -> str:
        """Of the manifest's file."""
        return manifest_digest(self.place)

    def describe(self) -> str:
        """A line of photos and classes."""
        return describe(self.place, self.samples, self.classes, {})

    def files(self) -> ShardFiles:
        """Files of the set, on this machine; close them."""
        if isinstance(self.place, Path):
            return LocalFiles(self.place, self.manifest)
        return StagedFiles(self.place, self.manifest, self._objects, self._cache)

    @cached_property
    def _objects(self) -> dict[str, Stat]:
        """What the object store has: not asked for where a set is opened for its classes alone."""
        return find_objects(str(self.place), self.manifest)

    def reader(self, components: list[str]) -> ShardReader:
        """A reader of samples."""
        return ShardReader(self.files(), self.manifest, components)

    def check(self) -> None:
        """Manifest, sizes and indices; copies of an object store's files were compared with it."""
        if isinstance(self.place, Path):
            open_shards(self.place, verify=False)

    def damaged(self, rows: np.ndarray, options: DecodeOptions) -> list[Problem]:
        """Lines of `SHARD: KEY: problem` for photos, tiles and labels that cannot be used."""
        problems, decoder = [], Decoder(upright=options.upright)
        with closing(self.files()) as files:
            for number in filter(files.has, np.unique(rows[:, 0]).tolist()):
                name = join(self.place, self.manifest.shards[number].name)
                wanted = set(rows[rows[:, 0] == number, 1].tolist())
                with files.tar(number).open("rb") as file:
                    for row, (key, members) in enumerate(locate_samples(files.index(number))):
                        if row not in wanted:
                            continue
                        data = {}
                        for extension, (offset, size) in members.items():
                            file.seek(offset)
                            data[extension] = file.read(size)
                        photo, found = f"{name}: {key}", self._problems(data, decoder, options.least)
                        problems += [Problem(photo, f"{photo}: {line}") for line in found]
        return problems

    def _problems(self, data: dict[str, bytes], decoder: Decoder, least: int) -> list[str]:
        """Problems of a sample, its members' bytes by extension; least: see `DecodeOptions`."""
        images = {name: data[name] for name in ("jpg", "tile.jpg") if data.get(name)}
        limits = {"jpg": least, "tile.jpg": 1}
        problems = {n: decoder.problem(image, self.max_pixels, limits[n]) for n, image in images.items()}
        found = [f"{name} {problem}" for name, problem in problems.items() if problem]
        size = decoder.peek(data["jpg"]) if "tile" in data and "jpg" in images and not found else None
        if size:
            geometry = unpack_tile(data["tile"], "geometry")
            if isinstance(geometry, np.ndarray) and not fits(geometry[None], np.array([size[::-1]]))[0]:
                found.append("the tile lies not in its photo")
        label, classes = data["cls"], len(self.classes)
        if not label.isdigit() or int(label) >= classes:
            found.append(f"cls is {label!r}, no number of one of {classes} classes")
        return found

    def explain(self, problems: list[str]) -> str:
        """Shards were whole when they were packed."""
        lines = "\n  ".join(["the shards were damaged after packing:", *problems])
        return f"{lines}\nrestore them from where they were copied, or pack them again"


def open_packed(
    place: Location,
    verify: bool | None = None,
    option: str = "data.shards",
    *,
    rank: int = 0,
    world_size: int = 1,
    cache: CacheOptions | None = None,
) -> PackedShards:
    """Open packed shards in a folder (see `shards.open_shards`), or in an object store, whose shards are
    looked into when they are copied.

    cache: of an object store's files.
    """
    if isinstance(place, str):
        return PackedShards(place, read_manifest(place, option), cache)
    return PackedShards(place, open_shards(place, verify, option, rank=rank, world_size=world_size))


def open_data(
    place: Location,
    verify: bool | None = None,
    option: str = "data.shards",
    *,
    rank: int = 0,
    world_size: int = 1,
    cache: CacheOptions | None = None,
) -> Dataset:
    """Open packed shards, or else class folders of photos, which evaluation can read, too."""
    if isinstance(place, str) or (place / MANIFEST).exists():
        return open_packed(place, verify, option, rank=rank, world_size=world_size, cache=cache)
    return open_folder(place, option)
