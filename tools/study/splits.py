"""Packing of a split whose masks are exact."""

from pathlib import Path

from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


def pack_split(photos: Path, masks: Path, out: Path, workers: int) -> Path:
    """Photos and their exact masks -> out/masks, out/tiles, out/shards; what is finished is kept.

    Returns:
        The folder of the shards.
    """
    write_mask_store(photos, ImportOptions(folder=masks), out / "masks", workers=workers)
    write_tile_store(out / "masks", out / "tiles", workers=workers)
    write_shards(photos, out / "masks", out / "tiles", out / "shards", workers=workers)
    return out / "shards"
