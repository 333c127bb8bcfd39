"""Photos packed by the offline tools, which their own tests look at."""

from pathlib import Path

import numpy as np

from dali_bgaug import shards
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.report import Report
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


def pack_photos(folder: Path) -> Path:
    """folder/photos and folder/masks -> mask_store, tile_store and shards in it; returns that of shards."""
    photos, masks, tiles = folder / "photos", folder / "mask_store", folder / "tile_store"
    write_mask_store(photos, ImportOptions(folder=folder / "masks"), masks, per_file=32)
    write_tile_store(masks, tiles)
    write_shards(photos, masks, tiles, folder / "shards", per_shard=16)
    return folder / "shards"


SIZE = (96, 64)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A photo that is red on the left, blue on the right, green on top: any turn shows; and a mask."""
    width, height = SIZE
    photo = np.zeros((height, width, 3), np.uint8)
    photo[:, : width // 2, 0], photo[:, width // 2 :, 2] = 200, 200
    photo[: height // 4, :, 1] = 200
    mask = np.zeros((height, width), bool)
    mask[20:50, 10:40] = True
    return photo, mask


def stores(folder: Path, **options: object) -> Report:
    masks = ImportOptions(folder=folder / "masks")
    report = write_mask_store(folder / "photos", masks, folder / "ms", per_file=4, **options)
    write_tile_store(folder / "ms", folder / "ts", **options)
    return report


def read_samples(folder: Path, out: str = "shards") -> dict[str, shards.Sample]:
    manifest = shards.open_shards(folder / out)
    found = [s for shard in manifest.shards for s in shards.read_samples(folder / out, shard)]
    assert len(found) == manifest.samples
    return {sample.key: sample for sample in found}


def pack(folder: Path, out: str = "shards", **options: object) -> Report:
    return write_shards(folder / "photos", folder / "ms", folder / "ts", folder / out, **options)
