"""Small shards, packed with the library alone: what a loader reads must not depend on the tools."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dali_bgaug import shards
from dali_bgaug.photo_tree import class_of
from dali_bgaug.tiles import fill, tile_geometry

MASK_SIZE = 256


def save(folder: Path, name: str, photo: np.ndarray, mask: np.ndarray) -> None:
    """Write a photo (uint8 [H, W, 3] or [H, W]) and its mask (bool [H, W]); flat grey areas survive the JPEG
    exactly."""
    for kind in ("photos", "masks"):
        (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(folder / "photos" / f"{name}.jpg", quality=98, subsampling=0)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")


def pack(folder: Path, per_shard: int = 16, pixels: bool = False) -> Path:
    """Pack folder/photos and folder/masks, shuffled, into folder/shards; pixels: of tiles, not geometry.

    Returns:
        The folder of the shards.
    """
    paths = sorted((folder / "photos").rglob("*.jpg"))
    keys = [path.relative_to(folder / "photos").with_suffix("").as_posix() for path in paths]
    classes = sorted({class_of(key) for key in keys})
    order = np.random.default_rng(0).permutation(len(keys))
    out, kind = folder / "shards", "pixels" if pixels else "geometry"
    out.mkdir()
    written, donors = [], 0
    for start in range(0, len(keys), per_shard):
        samples = [_sample(folder, keys[i], classes, pixels) for i in order[start : start + per_shard]]
        donors += sum(sample.tile is not None for sample in samples)
        written.append(shards.write_shard(out, f"shard-{start // per_shard:05d}", samples, kind))
    manifest = shards.Manifest(
        samples=len(keys),
        donors=donors,
        classes=classes,
        mask_size=MASK_SIZE,
        tiles=kind,
        options={},
        source="",
        shards=written,
    )
    shards.write_manifest(out, manifest)
    return out


def _sample(folder: Path, key: str, classes: list[str], pixels: bool) -> shards.Sample:
    data = (folder / "photos" / f"{key}.jpg").read_bytes()
    mask = Image.open(folder / "masks" / f"{key}.png")
    tile: bytes | np.ndarray | None = None
    if box := mask.getbbox():
        [tile] = tile_geometry(np.array([box]), np.array([mask.size]))
        if pixels:
            photo = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            Image.fromarray(fill(photo, tile)).save(buffer := io.BytesIO(), "JPEG", quality=90)
            tile = buffer.getvalue()
    bits = np.asarray(mask.resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BILINEAR)) >= 128
    return shards.Sample(key, data, bits, tile, classes.index(class_of(key)))


def samples_of(folder: Path, count: int = 32) -> list[shards.Sample]:
    """The first samples that may lend their tile."""
    return [sample for sample in _read(folder) if sample.tile is not None][:count]


def _read(folder: Path) -> Iterator[shards.Sample]:
    for shard in shards.open_shards(folder).shards:
        yield from shards.read_samples(folder, shard)
