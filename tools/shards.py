"""Pack photos, masks and tiles into the training stream: shuffled WebDataset tars with DALI's index.

    python -m tools.shards --photos DATA --masks out/masks --tiles out/tiles --out out/shards

The class of a photo is the first folder of its path; photos without one are one class. Every photo is
decoded once more before it is packed: DALI cannot skip a damaged one in the middle of a run.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dali_bgaug import shards, stores
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from tools import photos
from tools._cli import default_workers, process, run
from tools.tiles import check_size

PROGRESS = ".progress"  # what is finished, until the manifest says so


def write_shards(
    photo_folder: Path,
    mask_store: Path,
    tile_store: Path,
    out: Path,
    *,
    per_shard: int = 1000,
    seed: int = 0,
    workers: int = 1,
) -> shards.Manifest:
    """Pack a data set, shuffled by `seed`; finished shards are kept. Returns its manifest.

    Raises:
        UserError: stores that do not belong together, damaged or changed photos, two photos of one name.
    """
    if per_shard < 1:
        raise UserError(f"--per-shard={per_shard}: must be at least 1")
    mask_files, tile_files = _matching_stores(mask_store, tile_store)
    entries = [stores.read_entries(file) for file in mask_files]
    keys = [key for part in entries for key in part.keys]
    photos.reject_equal_names(keys)
    flags = np.concatenate([part.flags for part in entries])
    labels, classes = _labels(keys)
    options = {**entries[0].options, "tile": stores.read_source(tile_files[0])[1], "seed": seed}
    source = stores.digest([part.source for part in entries], options, per_shard, classes)

    manifest_path = out / "manifest.json"
    if manifest_path.exists():
        manifest = shards.open_shards(out, option="--out")
        if manifest.source == source:
            return manifest
        raise UserError(
            f"{manifest_path}: packed from other photos, masks or options than those given now; "
            "choose another --out, or delete that folder to pack anew"
        )

    where = [(file, row) for file, part in enumerate(entries) for row in range(len(part.keys))]
    order = np.random.default_rng(seed).permutation(len(keys))
    parts = [order[i : i + per_shard] for i in range(0, len(keys), per_shard)]
    jobs = [
        (
            photo_folder,
            mask_files,
            tile_files,
            [
                (keys[i], *where[i], int(labels[i]), int(flags[i]), entries[where[i][0]].size[where[i][1]])
                for i in part
            ],
            options["threshold"],
            out,
            f"shard-{number:05d}",
            source,
        )
        for number, part in enumerate(parts)
    ]
    written = list(process(_write_shard, jobs, [len(part) for part in parts], workers, "shards"))
    manifest = shards.Manifest(
        samples=len(keys),
        donors=int((flags == 0).sum()),
        classes=classes,
        mask_size=options["mask_size"],
        options=options,
        source=source,
        shards=sorted((shards.Shard(**values) for values in written), key=lambda shard: shard.name),
    )
    shards.write_manifest(out, manifest)
    shutil.rmtree(out / PROGRESS)
    return manifest


def _matching_stores(mask_store: Path, tile_store: Path) -> tuple[list[Path], list[Path]]:
    mask_files, tile_files = (
        stores.list_files(mask_store, "--masks"),
        stores.list_files(tile_store, "--tiles"),
    )
    mend = "make the tiles anew from this mask store (make tiles)"
    if len(mask_files) != len(tile_files):
        raise UserError(
            f"--tiles={tile_store}: {len(tile_files)} files, the mask store has {len(mask_files)}; {mend}"
        )
    for masks, tiles in zip(mask_files, tile_files, strict=True):
        source, options = stores.read_source(tiles)
        if source != stores.digest(stores.read_source(masks)[0], options):
            raise UserError(f"{tiles}: was not made from {masks}; {mend}")
    return mask_files, tile_files


def _labels(keys: list[str]) -> tuple[np.ndarray, list[str]]:
    names = [key.split("/", 1)[0] if "/" in key else "" for key in keys]
    classes, labels = np.unique(names, return_inverse=True)
    if len(classes) >= 10**shards.LABEL_DIGITS:
        raise UserError(f"{len(classes)} classes; a label has room for {shards.LABEL_DIGITS} digits")
    return labels, classes.tolist()


def _write_shard(
    photo_folder: Path,
    mask_files: list[Path],
    tile_files: list[Path],
    rows: list[tuple],
    threshold: float,
    out: Path,
    name: str,
    source: str,
) -> dict[str, Any]:
    done = out / PROGRESS / f"{name}.json"
    if done.exists():
        record = json.loads(done.read_text())
        if record["source"] == source:
            return record["shard"]
    masks, tiles = stores.StoreReader(mask_files), stores.StoreReader(tile_files)

    def samples():
        for key, file, row, label, flags, size in rows:
            photo = photo_folder / key
            check_size(photo, photos.open_photo(photo).size, size)
            mask = masks.saliency(file, row) >= threshold * 255
            tile = b"" if flags else tiles.tile(file, row)  # what is not there cannot become a donor
            yield shards.Sample(shards.member_key(key), photo.read_bytes(), mask, tile, label)

    shard = shards.write_shard(out, name, samples()).model_dump()
    masks.close()
    tiles.close()
    write_text(done, json.dumps({"source": source, "shard": shard}))
    return shard


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.shards", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="the folder the masks were made from")
    parser.add_argument("--masks", type=Path, default=Path("out/masks"), help="the mask store (%(default)s)")
    parser.add_argument("--tiles", type=Path, default=Path("out/tiles"), help="the tile store (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/shards"), help="the data set (%(default)s)")
    parser.add_argument("--per-shard", type=int, default=1000, help="photos a tar (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the global shuffle (%(default)s)")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (all CPUs)")
    args = parser.parse_args()
    manifest = write_shards(
        args.photos,
        args.masks,
        args.tiles,
        args.out,
        per_shard=args.per_shard,
        seed=args.seed,
        workers=args.workers,
    )
    print(
        f"{args.out}: {manifest.samples} photos of {len(manifest.classes)} classes "
        f"in {len(manifest.shards)} shards, {manifest.bytes / 1e6:.1f} MB, "
        f"{manifest.donors} of them donors of backgrounds"
    )


if __name__ == "__main__":
    run(main)
