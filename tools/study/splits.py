"""Packing of splits: photos whose masks are found by a detector, or imported."""

from pathlib import Path
from typing import NamedTuple

from tools.offline.detectors import DetectorOptions
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


class Split(NamedTuple):
    """Photos to train on, or to test on."""

    photos: Path
    """Folder of class folders."""
    detector: DetectorOptions
    """Of their masks."""
    subset: Path | None = None
    """List of those of the photos that are meant; None: all."""


def pack_split(split: Split, stores: Path, shards: Path, workers: int) -> Path:
    """Photos -> stores/masks, stores/tiles, and shards; what is finished is kept.

    stores: of all photos of the folder, so that splits of one folder share them. Returns `shards`.
    """
    workers = 1 if split.detector.on_gpu else workers
    write_mask_store(split.photos, split.detector, stores / "masks", workers=workers).finish()
    write_tile_store(stores / "masks", stores / "tiles", workers=workers).finish()
    folders = stores / "masks", stores / "tiles", shards
    write_shards(split.photos, *folders, subset=split.subset, workers=workers).finish()
    return shards
