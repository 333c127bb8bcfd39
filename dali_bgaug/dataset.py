"""Data sets that a loader reads: packed shards, or class folders of photos (`folder.py`)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.decoding import DecodeOptions, Decoder, Problem
from dali_bgaug.folder import open_folder
from dali_bgaug.photo_tree import Oddity, describe
from dali_bgaug.reading import READER, ReaderOptions
from dali_bgaug.shard_index import locate_samples
from dali_bgaug.shards import Manifest, TileKind, manifest_digest, open_shards, unpack_tile
from dali_bgaug.tiles import fits

_SOURCE = re.compile(r"(.*\.tar):(\d+):(.*)", re.DOTALL)


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
    open_files: int
    """Files that are held open where they are not mapped into memory."""

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

    def read(self, components: list[str], options: ReaderOptions) -> dict[str, DataNode]:
        """The named components (`shards.extensions`) of a rank's n-th of the samples, still encoded, on the
        CPU, as part of the pipeline that is being defined.

        Shares are padded to whole batches with their last sample. With a shuffle buffer a rank has another
        n-th each epoch, in an order of the epoch's own; without one (0) always the same n-th in order.
        """

    def check(self) -> None:
        """Look again whether all is as it was when the set was opened, photos' bytes apart.

        Raises:
            UserError: it is not.
        """

    def damaged(self, sources: list[bytes], options: DecodeOptions) -> list[Problem]:
        """Problems of samples; sources: where DALI says they were read; options: how they are decoded."""

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
        self.open_files = len(manifest.shards)

    @property
    def digest(self) -> str:
        """Of the manifest's file."""
        return manifest_digest(self.folder)

    def describe(self) -> str:
        """A line of photos and classes."""
        return describe(self.folder, self.samples, self.classes, {})

    def read(self, components: list[str], options: ReaderOptions) -> dict[str, DataNode]:
        """uint8 [bytes] each; every epoch the shards are reordered: see `Dataset.read`."""
        seeds = options.seeds
        order: dict[str, Any] = {"random_shuffle": False, "stick_to_shard": True}
        if options.shuffle_buffer:
            order = {
                "random_shuffle": True,
                "initial_fill": min(options.shuffle_buffer, max(1, self.samples // options.world_size)),
                "shuffle_after_epoch": True,
                "shuffle_after_epoch_seed": seeds.of_dali("epoch", rank=0),  # the same on every rank
            }
        nodes = fn.readers.webdataset(
            name=READER,
            paths=[str(self.folder / shard.name) for shard in self.manifest.shards],
            index_paths=[str(self.folder / shard.index) for shard in self.manifest.shards],
            ext=components,
            missing_component_behavior="error",
            shard_id=seeds.rank,
            num_shards=options.world_size,
            pad_last_batch=True,
            dont_use_mmap=not options.mmap,
            prefetch_queue_depth=options.depth,
            seed=seeds.of_dali("shuffle"),
            **order,
        )
        return dict(zip(components, nodes if len(components) > 1 else [nodes]))

    def check(self) -> None:
        """Manifest, sizes and indices."""
        open_shards(self.folder, verify=False)

    def damaged(self, sources: list[bytes], options: DecodeOptions) -> list[Problem]:
        """Lines of `SHARD: KEY: problem` for photos, tiles and labels that cannot be used."""
        offsets: dict[Path, set[int]] = {}
        for source in sources:
            if place := _SOURCE.fullmatch(source.decode()):
                offsets.setdefault(Path(place[1]), set()).add(int(place[2]))
        problems, decoder = [], Decoder(upright=options.upright)
        for path, wanted in offsets.items():
            with path.open("rb") as file:
                for key, members in locate_samples(path.with_suffix(".idx")):
                    if members["jpg"][0] not in wanted:
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


def open_packed(folder: Path, verify: bool | None = None, option: str = "data.shards") -> PackedShards:
    """Open packed shards: see `shards.open_shards`."""
    return PackedShards(folder, open_shards(folder, verify, option))


def open_data(folder: Path, verify: bool | None = None, option: str = "data.shards") -> Dataset:
    """Open packed shards, or else class folders of photos, which evaluation can read, too."""
    if (folder / "manifest.json").exists():
        return open_packed(folder, verify, option)
    return open_folder(folder, option)
