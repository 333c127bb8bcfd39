"""Pack photos, masks and tiles into the training stream: shuffled WebDataset tars with DALI's index.

    python -m tools.shards --photos DATA --masks out/masks --tiles out/tiles --out out/shards

Every photo is decoded by the decoder that training uses, which cannot skip a bad one: what it refuses is
left out and listed in the report, OUT-report.json; what it decodes with a warning of damage is listed there
as suspicious, and lends no background. A photo's class is the first folder of its path, or what --classes
says.
"""

import hashlib
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dali_bgaug import shards, stores
from dali_bgaug.decoding import MAX_PIXELS, Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest, sha256
from dali_bgaug.hdf5 import REMEDY
from dali_bgaug.photo_tree import describe
from dali_bgaug.storage import Location
from dali_bgaug.tiles import fits, rescale
from tools.cli import ALL, Part, pick, require, run, tool_parser
from tools.offline import packing, photos
from tools.offline.command import add_scale_arguments, location, run_part
from tools.offline.places import SCRATCH, Output, open_output, open_store
from tools.offline.report import Done, Report
from tools.offline.shard_photos import Packed, PhotoOptions, pack_photo
from tools.offline.shard_plan import Row, make_plan, match_stores

MEGABYTE = 1_000_000


class _Job(NamedTuple):
    """The inputs that all shards of a run share."""

    photos: Path
    mask_files: tuple[Path, ...]
    tile_files: tuple[Path, ...]
    level: int
    """Saliency from which on a pixel is foreground."""
    max_pixels: int
    tiles: shards.TileKind
    output: Output
    source: str
    options: PhotoOptions
    device_id: int | None


def write_shards(
    photo_folder: Path,
    mask_store: Location,
    tile_store: Location,
    out: Location,
    *,
    shard_mb: float = 200,
    per_shard: int = 10_000,
    seed: int = 0,
    classes: Path | None = None,
    subset: Path | None = None,
    photo_options: PhotoOptions | None = None,
    device: str = "cpu",
    workers: int = 1,
    part: Part = ALL,
    scratch: Path = SCRATCH,
) -> Report:
    """Pack a data set, shuffled by `seed`; finished shards are kept. The last part writes the manifest.

    shard_mb, per_shard: a shard ends at whichever comes first, megabytes or photos. classes, subset: see
    `tools.shard_plan`. device: where the training decoder runs for the check, "cpu" or "gpu". scratch: for
    files on their way to and from an object store.

    Raises:
        UserError: stores that do not belong together, photos that changed or cannot be read, two of one name.
    """
    photo_options = photo_options or PhotoOptions()
    require(shard_mb > 0, f"--shard-mb={shard_mb}: must be above 0")
    require(per_shard >= 1, f"--per-shard={per_shard}: must be at least 1")
    side = photo_options.max_side
    require(side is None or side >= 32, f"--max-side={side}: must be at least 32 pixels")
    masks, tiles = open_store(mask_store, "--masks", scratch), open_store(tile_store, "--tiles", scratch)
    mask_files, tile_files = zip(*match_stores(masks.folder, tiles.folder), strict=True)
    entries = [stores.read_entries(file) for file in mask_files]
    plan = make_plan(
        entries,
        [stores.tile_bytes(file) for file in tile_files],
        target_bytes=int(shard_mb * MEGABYTE),
        per_shard=per_shard,
        seed=seed,
        classes=classes,
        subset=subset,
    )
    photos.reject_equal_names(plan.keys)
    sources = [stores.read_source(file) for file in tile_files]
    options = {
        **entries[0].options,
        "tile": sources[0].options,
        "seed": seed,
        "photos": {**photo_options.record(), "device": device},
    }
    packed = [hashlib.sha256(part.tobytes()).hexdigest() for part in (plan.order, plan.label, plan.ends)]
    source = digest([each.source for each in sources], options, plan.classes, packed)  # masks' too
    if subset is not None:  # to be read in the manifest; `source` knows the photos themselves
        counts = {"photos": len(plan.order), "of": len(plan.keys)}
        options["subset"] = {"list": subset.name, "sha256": sha256(subset), **counts}
    output = open_output(out, scratch)
    print(describe(output, len(plan.order), plan.classes, plan.oddities))
    made = {"options": options, "oddities": plan.oddities}
    report = Report(tool="shards", out=output, part=part, workers=workers, **made)
    if packing.keep_finished(output, source, report):
        return report
    device_id = None if device == "cpu" else 0
    Decoder(device_id)  # no GPU? now, not in every worker
    with_rows = masks.with_rows(mask_files), tiles.with_rows(tile_files)
    level, max_pixels = stores.level(options["threshold"]), options.get("max_pixels", MAX_PIXELS)
    stored = photo_folder, *with_rows, level, max_pixels, stores.tile_kind(tile_files[0])
    job = _Job(*stored, output, source, photo_options, device_id)
    numbers = range(len(plan.ends))[part.slice]
    report.run(
        _write_shard,
        ((job, packing.name_of(number), plan.rows(number)) for number in numbers),
        [plan.shard_photos(number) for number in numbers],
        [plan.shard_bytes(number) for number in numbers],
    )
    packing.write_manifest(output, len(plan.ends), source, plan.classes, options, job.tiles)
    return report


def _write_shard(job: _Job, name: str, rows: list[Row]) -> Done:
    samples = partial(packing.samples_of, rows, partial(_sample, job))
    return packing.pack_shard(job.output, name, job.source, samples, job.tiles)


def _sample(job: _Job, record: dict[str, Any], row: Row) -> shards.Sample:
    """A photo's sample, counted in the record."""
    decoder, masks, tiles = _tools(job)
    path = job.photos / row.key
    photos.check_pixels(path, (row.width, row.height), job.max_pixels)
    packed = pack_photo(path, row, decoder, job.options)
    mask = masks.saliency(row.file, row.row) >= job.level
    lends = not row.flags and not packed.damage
    tile = _tile(job, row, packed, decoder, tiles) if lends else None
    if row.flags & stores.EMPTY:
        mask = np.zeros_like(mask)  # also of the specks that were too small to count
    record["suspicious"] += [row.key] if packed.damage else []
    record["read"] += packed.before
    record["donors"] += tile is not None
    record["counts"]["reencoded"] += packed.reencoded
    record["counts"]["shrunk"] += packed.shrunk
    record["counts"]["bytes_saved"] += (packed.before - len(packed.data)) * packed.shrunk
    return shards.Sample(shards.member_key(row.key), packed.data, mask, tile, row.label)


def _tile(
    job: _Job, row: Row, packed: Packed, decoder: Decoder, tiles: stores.StoreReader
) -> bytes | np.ndarray | None:
    """A photo's tile, looked at: training could not skip one that is damaged."""
    if job.tiles == "pixels":
        tile = tiles.tile(row.file, row.row)
        if not tile or not decoder.problem(tile, job.max_pixels):
            return tile or None
    else:
        geometry = tiles.geometry(row.file, row.row)
        if fits(geometry[None], np.array([[row.height, row.width]]))[0]:
            geometry = rescale(geometry, (row.width, row.height), packed.size)
            return geometry if geometry.any() else None
    raise UserError(f"{job.tile_files[row.file]}: the tile of {row.key} is damaged; {REMEDY}")


@lru_cache(maxsize=1)
def _tools(job: _Job) -> tuple[Decoder, stores.StoreReader, stores.StoreReader]:
    """Once a process and run: building and opening them takes longer than many photos."""
    return Decoder(job.device_id), stores.StoreReader(job.mask_files), stores.StoreReader(job.tile_files)


def main() -> None:
    parser = tool_parser("tools.shards", __doc__)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="the folder the masks were made from")
    add("--masks", type=location, default=Path("out/masks"), help="the mask store (%(default)s)")
    add("--tiles", type=location, default=Path("out/tiles"), help="the tile store (%(default)s)")
    add("--out", type=location, default=Path("out/shards"), help="the data set (%(default)s)")
    add("--shard-mb", type=float, default=200, help="a tar's size, in MB (%(default)s)")
    add("--per-shard", type=int, default=10_000, help="most photos a tar (%(default)s)")
    add("--seed", type=int, default=0, help="of the global shuffle (%(default)s)")
    add("--classes", type=Path, help="list of class names, or of 'PHOTO CLASS' (default: folders)")
    add("--subset", type=Path, help="pack only the photos of this list (see tools.subsets)")
    what = "encode anew what is no plain JPEG, in place of leaving it out"
    add("--reencode", action="store_true", help=what)
    add("--strict", action="store_true", help="leave out photos that are damaged inside (else listed)")
    add("--max-side", type=int, help="encode larger photos anew, this long (default: off)")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="where training will decode (%(default)s)")
    add_scale_arguments(parser)
    args = parser.parse_args()
    options = pick(args, "shard_mb", "per_shard", "seed", "classes", "subset", "device")
    options["photo_options"] = PhotoOptions(**pick(args, "reencode", "max_side", "strict"))
    inputs = args.photos, args.masks, args.tiles
    run_part(args, write_shards, *inputs, on_gpu=args.device == "gpu", **options)


if __name__ == "__main__":
    run(main)
