"""The plan of shards, which photo goes into which under which label: decided before any photo is opened.

A plan is a few arrays and the photos' paths: 1.28 million photos take seconds and some hundred megabytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_bgaug import shards, stores
from dali_bgaug.errors import UserError
from dali_bgaug.photo_tree import Oddity
from tools.offline.classes import read_classes
from tools.offline.lists import read_subset

BLOCK = 512  # of a tar
MEMBERS = len(shards.extensions("geometry"))


class Row(NamedTuple):
    """One photo of a shard."""

    key: str
    file: int
    """Of the stores, which file,"""
    row: int
    """and which of its rows."""
    label: int
    flags: int
    width: int
    height: int
    bytes: int
    """Of the photo's file."""


@dataclass(kw_only=True)
class Plan:
    """N photos in the stores' order, of which M are packed. `order` and `ends` say how."""

    keys: list[str]
    numbers: np.ndarray
    """The numbers of `Row`, int64 [N, 7]."""
    label: np.ndarray
    bytes: np.ndarray
    """Of the whole sample in its tar, about, int64 [N]."""
    classes: list[str]
    oddities: Mapping[str, Oddity]
    """Of the list of classes."""
    order: np.ndarray
    """int64 [M]: the shuffled photos."""
    ends: np.ndarray
    """int64: shard i holds order[ends[i - 1] : ends[i]]."""

    def _photos(self, shard: int) -> np.ndarray:
        return self.order[self.ends[shard - 1] if shard else 0 : self.ends[shard]]

    def rows(self, shard: int) -> list[Row]:
        """The photos of a shard, in its order."""
        chosen = self._photos(shard)
        rows = zip(chosen, self.numbers[chosen].tolist(), strict=True)
        return [Row(self.keys[photo], *numbers) for photo, numbers in rows]

    def shard_photos(self, shard: int) -> int:
        """The number of photos of a shard."""
        return len(self._photos(shard))

    def shard_bytes(self, shard: int) -> int:
        """About how large a shard becomes."""
        return int(self.bytes[self._photos(shard)].sum())


def make_plan(
    entries: Sequence[stores.Entries],
    tile_bytes: Sequence[np.ndarray],
    *,
    target_bytes: int,
    per_shard: int,
    seed: int,
    classes: Path | None = None,
    subset: Path | None = None,
) -> Plan:
    """Shuffle by `seed` and cut into shards of at most `target_bytes` and `per_shard` photos (one at least).

    entries, tile_bytes: of every file of the stores. classes, subset: files, see `read_classes`,
    `read_subset`.
    """
    keys = [key for part in entries for key in part.keys]
    counts = [len(part.keys) for part in entries]
    flags = np.concatenate([part.flags for part in entries])
    tiles = np.where(flags == 0, np.concatenate(tile_bytes), 0)  # a flagged photo's tile is not packed
    mask = entries[0].options["mask_size"] ** 2 // 8
    photo_bytes = np.concatenate([part.bytes for part in entries])
    parts = (photo_bytes, np.full(len(keys), mask), tiles)
    padded = [(part + BLOCK - 1) // BLOCK * BLOCK for part in parts]
    sample_bytes = np.sum(padded, axis=0) + BLOCK * (MEMBERS + 1)
    labels = read_classes(classes, keys)
    left_out = {key for part in entries for key, *_ in part.left_out}
    chosen = np.arange(len(keys)) if subset is None else read_subset(subset, keys, left_out)
    order = np.random.default_rng(seed).permutation(chosen)
    file, row = np.repeat(np.arange(len(counts)), counts), np.concatenate([*map(np.arange, counts)])
    size = np.concatenate([part.size for part in entries])
    return Plan(
        keys=keys,
        numbers=np.column_stack([file, row, labels.label, flags, size, photo_bytes]),
        label=labels.label,
        bytes=sample_bytes,
        classes=labels.classes,
        oddities=labels.oddities,
        order=order,
        ends=cut(sample_bytes[order], target_bytes, per_shard),
    )


def cut(sizes: np.ndarray, target_bytes: int, per_shard: int) -> np.ndarray:
    """Ends of consecutive runs, each as long as it can be within both limits; int64."""
    total = np.cumsum(sizes)
    ends, start, used = [], 0, 0
    while start < len(sizes):
        fitting = int(np.searchsorted(total, used + target_bytes, side="right"))
        end = min(max(fitting, start + 1), start + per_shard)
        ends.append(end)
        start, used = end, int(total[end - 1])
    return np.array(ends, np.int64)


def match_stores(mask_store: Path, tile_store: Path) -> Iterator[tuple[Path, Path]]:
    """The files of two stores that were made from one another, in pairs.

    Parts of a store that machines made in different ways, or of different photos, are a UserError.
    """
    mask_files = stores.list_files(mask_store, "--masks")
    tile_files = stores.list_files(tile_store, "--tiles")
    remedy = "make the tiles anew from this mask store (make tiles)"
    if len(mask_files) != len(tile_files):
        raise UserError(
            f"--tiles={tile_store}: {len(tile_files)} files, the mask store has {len(mask_files)}; {remedy}"
        )
    first: dict[str, stores.Source] = {}
    for masks, tiles in zip(mask_files, tile_files, strict=True):
        made = {kind: stores.read_source(path) for kind, path in (("masks", masks), ("tiles", tiles))}
        options, stamps = made["tiles"].options, made["tiles"].stamps
        if made["tiles"].source != stores.tile_source(made["masks"].source, options, stamps):
            raise UserError(f"{tiles}: was not made from {masks}; {remedy}")
        for kind, path, begin in (("masks", masks, mask_files[0]), ("tiles", tiles, tile_files[0])):
            here, there = made[kind], first.setdefault(kind, made[kind])
            if (here.options, here.listing) != (there.options, there.listing):
                keys = [key for key in here.options if here.options[key] != there.options.get(key)]
                what = f"with {keys[0]}={here.options[keys[0]]}" if keys else "from another list of photos"
                other = f", {there.options.get(keys[0])} in {begin}" if keys else f" than {begin}"
                raise UserError(f"{path}: was made {what}{other}; delete one of them and run its tool again")
        yield masks, tiles
