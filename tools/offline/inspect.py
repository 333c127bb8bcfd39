"""Inspection of mask stores, tile stores and shards: counts, sizes, foregrounds, flags, options, checks.

    python -m tools.inspect out              everything in it
    python -m tools.inspect out/shards --verify

Writes a contact sheet beside each, FOLDER-inspect.png. Foregrounds are counted on a sample of photos; with
--verify everything is read: checksums, every photo and tile decoded by the training decoder.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dali_bgaug import shards, stores
from dali_bgaug.decoding import MAX_PIXELS, Decoder
from dali_bgaug.errors import UserError, shown
from dali_bgaug.files import require_folder
from dali_bgaug.hdf5 import has_checksums
from dali_bgaug.storage import is_remote
from dali_bgaug.tiles import NUMBERS, fits
from tools.cli import require, run, tool_parser
from tools.offline.command import location
from tools.offline.inspect_sheet import Tile, draw_sheet
from tools.offline.report import counted, format_bytes

SAMPLE = 2000  # photos whose foreground is measured without --verify
BINS = 10
BAR = 40  # characters


def inspect(folder: Path, verify: bool = False, count: int = 24) -> list[str]:
    """Lines about a folder, or about all that it holds; writes the contact sheets, of `count` photos.

    Raises:
        UserError: nothing known in it, or, with `verify`, something that is not as it should be.
    """
    require(count >= 1, f"--count={count}: must be at least 1")
    folder = require_folder(folder, "DIR").absolute()
    kind = _kind(folder)
    if kind is not None:
        lines = (f"  {line}" for line in kind(folder, verify, count))
        return [f"{folder}: {kind.__name__.replace('_', ' ')}", *lines]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _kind(path)]
    if not inside:
        raise UserError(f"DIR={folder}: neither it nor a folder in it is a mask store, tile store or shards")
    return [line for path in inside for line in inspect(path, verify, count)]


def _kind(folder: Path) -> Callable[[Path, bool, int], Iterator[str]] | None:
    if (folder / "manifest.json").is_file() or any(folder.glob("shard-*.tar")):
        return packed_shards
    if not (first := min(folder.glob("*.h5"), default=None)):
        return None
    return mask_store if "rule" not in stores.read_source(first).options else tile_store


def mask_store(folder: Path, verify: bool, count: int) -> Iterator[str]:
    """Lines about a mask store."""
    files = sorted(folder.glob("*.h5"))  # it may be unfinished
    entries = [stores.read_entries(path) for path in files]
    yield from _files(files, sum(len(part.keys) for part in entries), entries[0].options)
    sizes = np.concatenate([part.size for part in entries])
    yield f"photos: {_spread(sizes.min(1), 'short side')}, {_spread(sizes.max(1), 'long side')} pixels"
    flags = np.concatenate([part.flags for part in entries])
    empty, full = ((flags & flag > 0).sum() for flag in (stores.EMPTY, stores.FULL_FRAME))
    yield f"flags: {empty} empty, {full} without a usable background strip"
    yield _reasons(reason for part in entries for _, reason, _ in part.left_out)
    places = [(file, row) for file, part in enumerate(entries) for row in range(len(part.keys))]
    level = stores.level(entries[0].options["threshold"])
    with stores.StoreReader(files) as reader:
        read = tqdm(places if verify else _sample(places, SAMPLE), desc="masks", unit="photo")
        shares = [float((reader.saliency(*place) >= level).mean()) for place in read]
        tiles = []
        for file, row in _sample(places, count):
            box = entries[file].box[row] / np.tile(entries[file].size[row], 2)
            tiles.append(Tile(entries[file].keys[row], reader.saliency(file, row), box))
    if verify:
        yield _checksums(files, "map")
    yield from _histogram(shares)
    yield str(draw_sheet(folder, tiles, shares))


def tile_store(folder: Path, verify: bool, count: int) -> Iterator[str]:
    """Lines about a tile store."""
    files = sorted(folder.glob("*.h5"))
    keys = [stores.read_keys(path) for path in files]
    yield from _files(files, sum(map(len, keys)), stores.read_source(files[0]).options)
    size = np.concatenate([stores.tile_bytes(path) for path in files])
    if stores.tile_kind(files[0]) == "geometry":
        yield f"geometry: {4 * NUMBERS} bytes a tile; shards show them"
        if verify:
            yield _checksums(files, "tile")
        return
    yield _spread(size / 1000, "kB a tile")
    places = [(file, row) for file, part in enumerate(keys) for row in range(len(part))]
    there = [place for place, its in zip(places, size, strict=True) if its]
    with stores.StoreReader(files) as reader:
        if verify:
            named = ((f"{files[i]}: {keys[i][row]}", reader.tile(i, row), None) for i, row in there)
            yield _decode_all(named, len(there), "tiles")
            yield _checksums(files, "tile")
        tiles = [Tile(keys[file][row], reader.tile(file, row)) for file, row in _sample(there, count)]
    yield str(draw_sheet(folder, tiles))


def packed_shards(folder: Path, verify: bool, count: int) -> Iterator[str]:
    """Lines about packed shards."""
    if not (folder / "manifest.json").is_file():
        there = len(list(folder.glob("shard-*.tar")))
        yield f"unfinished: {there} shards, no manifest.json; run the tool again"
        return
    manifest = shards.open_shards(folder, verify=verify)
    photos, files = counted(manifest.samples, "photo"), counted(len(manifest.shards), "shard")
    yield f"{photos} in {files}, {format_bytes(manifest.bytes)}"
    yield f"options: {json.dumps(manifest.options)}"
    sizes = np.array([shard.bytes for shard in manifest.shards])
    yield f"{_spread(sizes / 1e6, 'MB a shard')}; {manifest.bytes / manifest.samples / 1000:.1f} kB a photo"
    if verify:
        yield "verified: every shard has the checksum that manifest.json says"
    yield f"donors of backgrounds: {manifest.donors}"
    yield _reasons(reason for _, reason, _ in manifest.left_out)
    if manifest.suspicious:
        yield f"suspicious: {len(manifest.suspicious)} damaged inside, e.g. {manifest.suspicious[0]}"
    labels: Counter[int] = Counter()
    shares: list[float] = []
    tiles: list[Tile] = []
    read = manifest.shards
    if not verify:
        read = _sample(read, -(-SAMPLE * len(read) // manifest.samples))
    total = sum(shard.samples for shard in read)
    step = max(1, total // count)
    with tqdm(total=total, desc="shards", unit="photo") as bar:
        for shard in read:
            for sample in shards.read_samples(folder, shard):
                bar.update()
                labels[sample.label] += 1
                shares += [float(mask.mean()) for mask in (sample.mask,) if mask.size]
                if labels.total() % step == 0 and len(tiles) < count:
                    tile = {"mask": sample.mask, "lends": True, "tile": sample.tile}
                    tiles.append(Tile(sample.key, sample.photo, **tile))
    classes = f"{len(manifest.classes)} classes"
    counts = np.array(list(labels.values()))
    seen = "" if len(counts) == len(manifest.classes) else f" of {len(counts)} of them"
    yield f"{classes}, {counts.min()} to {counts.max()} photos each{seen} (in what was read)"
    if bad := [label for label in labels if label >= len(manifest.classes)]:
        raise UserError(f"{folder}: label {bad[0]}, but there are {classes}; pack again")
    if verify:
        yield _decode_all(_images(folder, manifest), manifest.samples, "decoding", manifest.max_pixels)
        if manifest.tiles == "geometry":
            yield "verified: every tile lies in its photo"
    yield from _histogram(shares) if manifest.mask_size else ["without masks"]
    yield str(draw_sheet(folder, tiles, shares))


def _images(folder: Path, manifest: shards.Manifest) -> Iterator[tuple[str, bytes, np.ndarray | None]]:
    """Name, JPEG, and the geometry that must lie in it, if there is some."""
    for shard in manifest.shards:
        for sample in shards.read_samples(folder, shard):
            name, pixels = f"{folder / shard.name}: {sample.key}", isinstance(sample.tile, bytes)
            yield f"{name}.jpg", sample.photo, None if pixels else sample.tile
            if pixels:
                yield f"{name}.tile.jpg", sample.tile, None


def _decode_all(
    images: Iterator[tuple[str, bytes, np.ndarray | None]],
    count: int,
    title: str,
    max_pixels: int = MAX_PIXELS,
) -> str:
    """Decode everything; what cannot be decoded, or has a tile that reaches beyond it, is a UserError."""
    decoder, bad, done = Decoder(), [], 0
    for name, image, tile in tqdm(images, desc=title, total=count, unit="image"):
        done += 1
        if problem := decoder.problem(image, max_pixels):
            bad.append(f"{name} {problem}")
        elif tile is not None and not fits(tile[None], np.array([(size := decoder.peek(image))[::-1]]))[0]:
            raise UserError(
                f"{name}: its tile {tile.tolist()} reaches beyond its {size[0]}x{size[1]} pixels; "
                "pack that shard anew"
            )
    if bad:
        raise UserError(f"{bad[0]} ({len(bad)} of {done}); make that file anew")
    return f"verified: the training decoder decodes all {done} images"


def _files(files: list[Path], photos: int, options: dict[str, Any]) -> Iterator[str]:
    of = int(files[0].stem.split("-of-")[1])
    rest = "" if len(files) == of else f" of {of}: unfinished, run its tool again"
    size = format_bytes(sum(path.stat().st_size for path in files))
    yield f"{counted(photos, 'photo')} in {counted(len(files), 'file')}{rest}, {size}"
    yield f"options: {json.dumps(options)}"


def _checksums(files: list[Path], row: str) -> str:
    """The line about checksums, once all rows of a store were read."""
    if old := sum(not has_checksums(path) for path in files):
        return f"not verified: {old} of {len(files)} files were written before there were checksums"
    return f"verified: every file and every {row} in it has its checksum"


def _reasons(reasons: Iterator[str]) -> str:
    counts = Counter(reasons)
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"left out: {counts.total()}{f' ({listed})' if listed else ''}"


def _spread(values: np.ndarray, what: str) -> str:
    if not len(values):
        return f"{what}: none"
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{what} {low:.4g} to {high:.4g}, median {middle:.4g}"


def _sample(values: list, count: int) -> list:
    """At most `count` of a list, evenly spread."""
    if len(values) <= count:
        return list(values)
    return [values[int(index)] for index in np.linspace(0, len(values) - 1, count)]


def _histogram(shares: list[float]) -> Iterator[str]:
    """Foreground as a share of the photo, as bars of text."""
    if not shares:
        return
    counts, _ = np.histogram(shares, BINS, (0, 1))
    yield f"foreground's share of {len(shares)} photos, mean {np.mean(shares):.3f}:"
    for number, count in enumerate(counts):
        bar = "#" * round(BAR * count / counts.max())
        yield f"  {number / BINS:.1f}-{(number + 1) / BINS:.1f} {count:8d} {bar}"


def main() -> None:
    parser = tool_parser("tools.inspect", __doc__)
    add = parser.add_argument
    add("folder", type=location, metavar="DIR", help="a store, shards, or a folder that holds some")
    add("--verify", action="store_true", help="read and check everything")
    add("--count", type=int, default=24, help="photos on the contact sheet (%(default)s)")
    args = parser.parse_args()
    if is_remote(args.folder):
        raise UserError(f"DIR={args.folder}: is inspected on a disk; copy it there (aws s3 cp --recursive)")
    print("\n".join(map(shown, inspect(args.folder, args.verify, args.count))))


if __name__ == "__main__":
    run(main)
