"""Make the folders of the backgrounds challenge (ImageNet-9) from a labelled set.

Each photo's foreground on other backgrounds, alone, and gone.

    python -m tools.background_challenge --shards out/shards --out out/challenge

    OUT/SPLIT/val/CLASS/NAME.png    PNG: a folder's pixels are exactly what its name says; 1 MB a photo in all
    OUT/challenge.json              settings, counts, photos left out; there once the folders are complete
    OUT/class_map.json              which folder a class is, where folders are not the classes by name

    original      the photo, its short side brought down to --side
    mixed_same    its foreground on the tiled background of another photo of its class
    mixed_rand    ... of another photo of any class, classes being equally likely, its own too
    mixed_next    ... of a photo of the next class; the first follows the last
    only_fg       its foreground on black
    only_bg_b     the photo, its foreground's bounding box black
    only_bg_t     its own tiled background
    no_fg         the photo, its foreground black

The splits of Xiao, Engstrom, Ilyas and Madry, "Noise or Signal" (2020), Table 1. All show the same photos:
none without foreground, without anything else, or whose tile must not be a background. Class folders sort in
the order of labels; where the classes' own names do not, they begin with the label.

Images depend on photos, --side and --seed alone. A killed run leaves whole files; the same command goes on.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from PIL import Image, ImageOps

from dali_bgaug import shards as packed
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.shard_index import locate_samples
from dali_bgaug.tiles import fill
from tools.cli import default_workers, process, require, run, tool_parser
from tools.offline.photos import decode_photo
from tools.synthetic.copies import scale_mask, show_left_out, write_png
from tools.synthetic.settings import read_finished

MIXED = ("mixed_same", "mixed_rand", "mixed_next")
SPLITS = ("original", *MIXED, "only_fg", "only_bg_b", "only_bg_t", "no_fg")  # Xiao et al. 2020, Table 1
MAP = "class_map.json"
VERSION = 1  # goes up whenever the same settings give other pixels
_CHUNK = 16  # photos a job
_FILTER = Image.Resampling.LANCZOS  # of photos and of tiles: one must not be sharper than the other


class Photo(NamedTuple):
    """One photo of the shards, and where its parts are."""

    key: str
    label: int
    unusable: str
    """Why it is left out; empty if it is not."""
    shard: str
    """File name of its tar."""
    places: dict[str, tuple[int, int]]
    """Offset and bytes of each part in the tar, by extension."""


Row = tuple[str, Photo, dict[str, Photo]]
"""A photo of the challenge: its path below OUT/SPLIT/val; for each split of MIXED, whose tile it gets."""


def compose(
    photo: np.ndarray, mask: np.ndarray, tile: np.ndarray, backgrounds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The images of one photo, uint8 [H, W, 3] each, by split in the order of SPLITS.

    Args:
        photo, tile: the photo, and its own tiled background, uint8 [H, W, 3].
        mask: its foreground, bool [H, W], at least one pixel.
        backgrounds: for each split of MIXED, what replaces the background, uint8 [H, W, 3].
    """
    inside = mask[..., None]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    boxed = photo.copy()
    boxed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 0
    return {
        "original": photo,
        **{split: np.where(inside, photo, backgrounds[split]) for split in MIXED},
        "only_fg": photo * inside,
        "only_bg_b": boxed,
        "only_bg_t": tile,
        "no_fg": photo * ~inside,
    }


def draw_donors(photos: Sequence[Photo], seed: int) -> list[dict[str, Photo]]:
    """For every photo and split of MIXED, another photo, whose tile becomes the background.

    photos: at least two of each class; their order does not matter.
    """
    members: dict[int, list[Photo]] = {}
    for photo in sorted(photos, key=lambda photo: (photo.label, photo.key)):
        members.setdefault(photo.label, []).append(photo)
    labels = list(members)
    place = {photo.key: index for group in members.values() for index, photo in enumerate(group)}
    donors = []
    for photo in photos:
        rng = np.random.default_rng([seed, crc32(photo.key.encode())])
        following = labels[(labels.index(photo.label) + 1) % len(labels)]
        chosen = {}
        for split, label in zip(MIXED, (photo.label, int(rng.choice(labels)), following), strict=True):
            group, own = members[label], label == photo.label
            start = place[photo.key] + 1 if own else 0  # counted from behind itself, all others are left
            chosen[split] = group[(start + int(rng.integers(len(group) - own))) % len(group)]
        donors.append(chosen)
    return donors


def _read(tar: Path, place: tuple[int, int]) -> bytes:
    with tar.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def _decode(folder: Path, photo: Photo, extension: str) -> Image.Image:
    tar = folder / photo.shard
    return decode_photo(_read(tar, photo.places[extension]), tar / f"{photo.key}.{extension}")


def _packed_tile(folder: Path, photo: Photo) -> bytes | np.ndarray | None:
    """A photo's tile as it is in the shard; None if it lends no background."""
    kind = packed.kind_of_tile(photo.places)
    return packed.unpack_tile(_read(folder / photo.shard, photo.places[packed.TILE_EXTENSION[kind]]), kind)


def _tile(folder: Path, photo: Photo) -> Image.Image:
    """The tiled background of a photo that has one."""
    tile = _packed_tile(folder, photo)
    if isinstance(tile, bytes):
        return _decode(folder, photo, "tile.jpg")
    return Image.fromarray(fill(np.asarray(_decode(folder, photo, "jpg")), tile))


def _load(folder: Path, photo: Photo, side: int) -> tuple[Image.Image, np.ndarray]:
    """A photo as it is, and its mask at the size of its images by nearest neighbour, bool [H, W]."""
    image = _decode(folder, photo, "jpg")
    scale = min(1, side / min(image.size))
    size = tuple(max(1, round(length * scale)) for length in image.size)  # as tools.tiles rounds
    data = _read(folder / photo.shard, photo.places["mask"])
    return image, scale_mask(packed.unpack_mask(data, int((len(data) * 8) ** 0.5)), size)


def _survey(folder: Path, shard: packed.Shard, side: int) -> list[Photo]:
    """The photos of one shard, and which of them can be used."""
    photos = []
    for key, places in locate_samples(folder / shard.index):
        photo = Photo(key, int(_read(folder / shard.name, places["cls"])), "", shard.name, places)
        _, mask = _load(folder, photo, side)
        if not mask.any():
            photo = photo._replace(unusable="no foreground")
        elif mask.all():
            photo = photo._replace(unusable="all foreground")
        elif _packed_tile(folder, photo) is None:
            photo = photo._replace(unusable="no strip of background to tile")
        photos.append(photo)
    return photos


def _write_images(folder: Path, out: Path, side: int, rows: Sequence[Row]) -> None:
    with ThreadPoolExecutor(len(SPLITS)) as pool:  # most of the time passes waiting for the disk
        for path, photo, donors in rows:
            files = [out / split / "val" / path for split in SPLITS]
            if all(file.exists() for file in files):  # from a run that was interrupted
                continue
            image, mask = _load(folder, photo, side)
            size = mask.shape[::-1]
            original = np.asarray(image.resize(size, _FILTER))
            tile = np.asarray(_tile(folder, photo).resize(size, _FILTER))
            # A donor's tile is scaled to cover the image; what hangs over is cut off, alike on both sides.
            lent = {split: ImageOps.fit(_tile(folder, of), size, _FILTER) for split, of in donors.items()}
            backgrounds = {split: np.asarray(tiled) for split, tiled in lent.items()}
            images = compose(original, mask, tile, backgrounds)
            list(pool.map(write_png, files, images.values()))


def make_challenge(
    shards: Path, out: Path, *, side: int = 256, seed: int = 0, workers: int = 1
) -> dict[str, Any]:
    """Make the folders, or the rest of them after an interruption; nothing if they are complete.

    Returns:
        What challenge.json holds: `version`, `side`, `seed`, `manifest` (hash of the shards'), `photos` (of
        a split), `labels` (by class folder), `counts` (by split and class folder), `left_out` (key, reason).

    Raises:
        UserError: a bad option; shards that are not whole, of one class, or with a class of fewer than two
            usable photos; an `out` that holds anything else, other settings or photos included.
    """
    require(side >= 32, f"--side={side}: must be at least 32 pixels")
    require(seed >= 0, f"--seed={seed}: must be 0 or more")
    manifest = packed.open_shards(shards)
    settings = {"version": VERSION, "side": side, "seed": seed, "manifest": packed.manifest_digest(shards)}
    finished, started = out / "challenge.json", out / "challenge.json.unfinished"
    if result := read_finished(finished, started, settings, "a backgrounds challenge"):
        return result
    sizes = [shard.samples for shard in manifest.shards]
    surveys = process(_survey, [(shards, shard, side) for shard in manifest.shards], sizes, workers, "masks")
    photos = sorted(chain.from_iterable(surveys), key=lambda photo: photo.key)
    folders = _class_folders(shards, manifest.classes, photos)
    usable = [photo for photo in photos if not photo.unusable]
    rows: dict[str, Row] = {}  # by path
    for photo, donors in zip(usable, draw_donors(usable, seed), strict=True):
        name = photo.key.removeprefix(f"{manifest.classes[photo.label]}/").replace("/", "_")
        path = f"{folders[photo.label]}/{name}.png"
        if path in rows:
            both = f"{rows[path][1].key} and {photo.key}"
            raise UserError(f"{shards}: {both} would both be {path}; rename one of them")
        rows[path] = path, photo, donors

    write_text(started, json.dumps(settings, indent=1) + "\n")
    todo = list(rows.values())
    jobs = [(shards, out, side, todo[start : start + _CHUNK]) for start in range(0, len(todo), _CHUNK)]
    for _ in process(_write_images, jobs, [len(job[-1]) for job in jobs], workers, "images"):
        pass
    counts = Counter(folders[photo.label] for photo in usable)
    result = {
        **settings,
        "photos": len(usable),
        "labels": {name: label for label, name in folders.items()},
        "counts": {split: {name: counts[name] for name in folders.values()} for split in SPLITS},
        "left_out": [[photo.key, photo.unusable] for photo in photos if photo.unusable],
    }
    if list(folders.values()) != manifest.classes:  # else names say it
        belongs = {name: folders.get(label, -1) for label, name in enumerate(manifest.classes)}
        write_text(out / MAP, json.dumps(belongs, indent=1) + "\n")
    write_text(started, json.dumps(result, indent=1) + "\n")
    started.rename(finished)
    return result


def _class_folders(shards: Path, classes: Sequence[str], photos: Sequence[Photo]) -> dict[int, str]:
    """The name of each class's folder, by label; a UserError if the photos do not make a challenge."""
    all_of = Counter(photo.label for photo in photos)
    usable_of = Counter(photo.label for photo in photos if not photo.unusable)
    labels = sorted(all_of)
    names = [classes[label] for label in labels]
    if len(labels) < 2:
        raise UserError(f"{shards}: has one class only, {names[0]!r}; pack photos of two classes or more")
    for label, name in zip(labels, names, strict=True):
        if usable_of[label] < 2:
            found = f"class {name!r} has {usable_of[label]} usable photos of {all_of[label]}"
            raise UserError(f"{shards}: {found}, two are needed; pack more, or none of it")
        if not name or name.startswith(".") or "/" in name:
            raise UserError(f"{shards}: class {name!r} cannot be a folder; pack it under another name")
    if names != sorted(names):
        digits = len(str(labels[-1]))
        names = [f"{label:0{digits}d}_{name}" for label, name in zip(labels, names, strict=True)]
    return dict(zip(labels, names, strict=True))


def main() -> None:
    parser = tool_parser("tools.background_challenge", __doc__)
    add = parser.add_argument
    add("--shards", type=Path, default=Path("out/shards"), help="labelled (%(default)s)")
    add("--out", type=Path, default=Path("out/challenge"), help="(%(default)s)")
    add("--side", type=int, default=256, help="short side, at most, in pixels (%(default)s)")
    add("--seed", type=int, default=0, help="of who lends whom a background (%(default)s)")
    add("--workers", type=int, help="processes (all CPUs)")
    args = parser.parse_args()
    result = make_challenge(
        args.shards, args.out, side=args.side, seed=args.seed, workers=args.workers or default_workers()
    )
    show_left_out(left_out := result["left_out"])
    print(f"{result['photos']} photos, {len(left_out)} left out (all are in {args.out / 'challenge.json'})")
    print(f"{args.out}/SPLIT/val/CLASS: SPLIT is {', '.join(SPLITS)}")
    words = ["--checkpoint RUN", f"--data {quote(str(args.out))}", "[--train SHARDS]"]
    words += [f"--class-map {quote(str(args.out / MAP))}"] if (args.out / MAP).exists() else []
    print(f"measure the gap on them: python -m train.evaluate background-gap {' '.join(words)}")


if __name__ == "__main__":
    run(main)
