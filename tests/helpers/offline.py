"""Photos packed by the offline tools, which their own tests look at."""

from pathlib import Path

from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


def pack(folder: Path) -> Path:
    """folder/photos and folder/masks -> mask_store, tile_store and shards in it; returns that of shards."""
    photos, masks, tiles = folder / "photos", folder / "mask_store", folder / "tile_store"
    write_mask_store(photos, ImportOptions(folder=folder / "masks"), masks, per_file=32)
    write_tile_store(masks, tiles)
    write_shards(photos, masks, tiles, folder / "shards", per_shard=16)
    return folder / "shards"
