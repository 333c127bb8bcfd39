"""Data sets that a loader reads: packed shards, or class folders of photos (`folder.py`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dali_bgaug.decoding import DecodeOptions, Decoder, Problem
from dali_bgaug.folder import open_folder
from dali_bgaug.photo_tree import Oddity, describe
from dali_bgaug.samples import SampleReader
from dali_bgaug.shard_index import locate_samples
from dali_bgaug.shard_reader import ShardReader
from dali_bgaug.shards import Manifest, TileKind, manifest_digest, open_shards, unpack_tile
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

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.samples, self.classes = manifest.samples, manifest.classes
        self.mask_size, self.tiles, self.donors = manifest.mask_size, manifest.tiles, manifest.donors
        self.max_pixels, self.is_looked_into = manifest.max_pixels, manifest.is_looked_into
        self.sizes = [shard.samples for shard in manifest.shards]

    @property
    def digest(self) -> str:
        """Of the manifest's file."""
        return manifest_digest(self.folder)

    def describe(self) -> str:
        """A line of photos and classes."""
        return describe(self.folder, self.samples, self.classes, {})

    def reader(self, components: list[str]) -> ShardReader:
        """A reader of samples."""
        return ShardReader(self.folder, self.manifest, components)

    def check(self) -> None:
        """Manifest, sizes and indices."""
        open_shards(self.folder, verify=False)

    def damaged(self, rows: np.ndarray, options: DecodeOptions) -> list[Problem]:
        """Lines of `SHARD: KEY: problem` for photos, tiles and labels that cannot be used."""
        problems, decoder = [], Decoder(upright=options.upright)
        for number in np.unique(rows[:, 0]).tolist():
            shard = self.manifest.shards[number]
            path, wanted = self.folder / shard.name, set(rows[rows[:, 0] == number, 1].tolist())
            with path.open("rb") as file:
                for row, (key, members) in enumerate(locate_samples(self.folder / shard.index)):
                    if row not in wanted:
                        continue
                    data = {}
                    for extension, (offset, size) in members.items():
                        file.seek(offset)
                        data[extension] = file.read(size)
                    photo, found = f"{path}: {key}", self._problems(data, decoder, options.least)
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
    folder: Path,
    verify: bool | None = None,
    option: str = "data.shards",
    *,
    rank: int = 0,
    world_size: int = 1,
) -> PackedShards:
    """Open packed shards: see `shards.open_shards`."""
    return PackedShards(folder, open_shards(folder, verify, option, rank=rank, world_size=world_size))


def open_data(
    folder: Path,
    verify: bool | None = None,
    option: str = "data.shards",
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Dataset:
    """Open packed shards, or else class folders of photos, which evaluation can read, too."""
    if (folder / "manifest.json").exists():
        return open_packed(folder, verify, option, rank=rank, world_size=world_size)
    return open_folder(folder, option)
