"""Make copies of photos in class folders whose background is gone: Only-FG ImageNet-A, or of your own photos.

    python -m tools.masks --photos imagenet-a --out out/masks
    python -m tools.only_foreground --photos imagenet-a --masks out/masks --out out/only_fg
    python -m train.evaluate robustness --checkpoint RUN/linear --set only-fg-imagenet-a=out/only_fg

    OUT/CLASS/NAME.png           the photo's size and pixels where its mask is, --colour elsewhere
    OUT/only_foreground.json     settings, counts, photos left out; there once all copies are

Left out are photos without foreground, and those the mask store has left out. Masks are of upright photos; a
copy lies as its photo's file does, EXIF orientation undone, so that both are evaluated alike. Black is the
colour of ImageNet-9's Only-FG (Xiao, Engstrom, Ilyas and Madry, "Noise or Signal", 2020).
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.decoding import MAX_PIXELS
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import digest
from dali_bgaug.orientation import read_orientation, stored
from dali_bgaug.photo_tree import list_photos
from tools.cli import ALL, default_workers, hold, run, tool_parser
from tools.offline.photos import BadPhoto, check_size, decode_photo, read_photo
from tools.synthetic.copies import copy_of, make_copies, reject_inside, scale_mask, summarise, write_png

VERSION = 1  # goes up whenever the same settings give other pixels
COLOURS = {"black": (0, 0, 0), "grey": (128, 128, 128)}


class _Row(NamedTuple):
    """The mask of a photo in the store, and the photo it was made for."""

    file: int
    row: int
    bytes: int
    size: tuple[int, int]
    """Upright, width and height."""
    empty: bool


class _Masks(NamedTuple):
    """The masks of a store."""

    files: tuple[Path, ...]
    level: int
    """The least saliency of foreground."""
    max_pixels: int


def make_only_foreground(
    photos: Path, masks: Path, out: Path, colour: tuple[int, int, int] = (0, 0, 0), workers: int = 1
) -> dict[str, Any]:
    """Make the copies, or the rest of them after an interruption; nothing if they are complete.

    photos: the folder the mask store `masks` was made from. colour: of the background, R, G, B.

    Returns:
        What only_foreground.json holds: `version`, `colour`, `masks` (a hash of the store's), `masks_made_by`
        (its options), and `photos`, `counts`, `left_out` as `make_copies` describes them.

    Raises:
        UserError: a store that is not whole or of other photos; photos that changed since; and see
            `make_copies`.
    """
    reject_inside(out, photos)
    files = tuple(stores.list_files(masks, "--masks"))
    entries = [stores.read_entries(file) for file in files]
    for file, part in zip(files, entries, strict=True):
        if (part.options, part.listing) != (entries[0].options, entries[0].listing):
            raise UserError(
                f"{file}: made with other options or from other photos than {files[0]}; make it anew"
            )
    left_out = [(key, reason) for part in entries for key, reason, _ in part.left_out]
    tree = list_photos(photos)
    print(tree.describe())
    known = {key for part in entries for key in part.keys} | {key for key, _ in left_out}
    if differing := sorted(known.symmetric_difference(tree.keys)):
        raise UserError(
            f"--masks={masks}: not made from the photos in --photos={photos}: {len(differing)} are in one of "
            f"them alone ({some(differing, 3)}); make the masks of this folder (make masks)"
        )
    options = entries[0].options
    store = _Masks(files, stores.level(options["threshold"]), options.get("max_pixels", MAX_PIXELS))
    settings = {
        "version": VERSION,
        "colour": list(colour),
        "masks": digest([part.source for part in entries]),
    }
    jobs = []
    for number, part in enumerate(entries):
        for row, key in enumerate(part.keys):
            width, height = part.size[row].tolist()
            empty = bool(part.flags[row] & stores.EMPTY)
            mask = _Row(number, row, int(part.bytes[row]), (width, height), empty)
            jobs.append((key, photos, out, store, mask, colour))
    record, what = out / "only_foreground.json", "copies without background"
    made_by = {"masks_made_by": options}
    return make_copies(record, what, settings, _write_copy, jobs, workers, left_out, **made_by)


def _write_copy(
    key: str, photos: Path, out: Path, masks: _Masks, row: _Row, colour: tuple[int, int, int]
) -> None:
    path, copy = photos / key, out / copy_of(key, ".png")
    if copy.exists():  # from a run that was interrupted
        return
    mask = _opened(masks.files).saliency(row.file, row.row) >= masks.level
    inside = scale_mask(mask, row.size)
    if row.empty or not inside.any():  # specks may fall between the pixels of the stored map
        raise BadPhoto(path, "no foreground")
    data = read_photo(path, row.bytes)
    image = decode_photo(data, path, masks.max_pixels)
    check_size(path, image.size, row.size)
    kept = np.where(inside[..., None], np.asarray(image), np.array(colour, np.uint8))
    write_png(copy, np.asarray(stored(Image.fromarray(kept), read_orientation(data))))


@lru_cache(maxsize=1)
def _opened(files: tuple[Path, ...]) -> stores.StoreReader:
    """Once a process."""
    return stores.StoreReader(files)


def read_colour(text: str) -> tuple[int, int, int]:
    """`black`, `grey`, or levels of red, green and blue, 0 to 255: `124,116,104`."""
    levels = text.split(",")
    if text in COLOURS:
        return COLOURS[text]
    if len(levels) != 3 or not all(level.isdecimal() and int(level) < 256 for level in levels):
        raise UserError(
            f"--colour={text}: must be {', '.join(COLOURS)}, or R,G,B of 0 to 255, as 124,116,104"
        )
    red, green, blue = map(int, levels)
    return red, green, blue


def main() -> None:
    parser = tool_parser("tools.only_foreground", __doc__)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="the folder the masks were made from")
    add("--masks", type=Path, default=Path("out/masks"), help="the mask store (%(default)s)")
    add("--out", type=Path, required=True, help="folder of the copies, new or interrupted")
    what = f"of the background: {', '.join(COLOURS)} (128) or R,G,B (%(default)s)"
    add("--colour", default="black", help=what)
    add("--workers", type=int, help="processes (all CPUs)")
    args = parser.parse_args()
    colour, workers = read_colour(args.colour), args.workers or default_workers()
    with hold(args.out, ALL):
        result = make_only_foreground(args.photos, args.masks, args.out, colour, workers)
    summarise(args.out / "only_foreground.json", result, " without background", "only-fg")


if __name__ == "__main__":
    run(main)
