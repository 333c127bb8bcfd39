"""Write the tile store: what every photo lends as a background, its own without the foreground.

    python -m tools.tiles --masks out/masks --out out/tiles
    python -m tools.tiles --masks out/masks --out out/tiles --pixels --photos DATA
    python -m tools.tiles --masks out/masks --out out/tiles --import TREE

By default geometry (`dali_bgaug/tiles.py`), from the mask store alone: no photo is opened. --pixels writes
the same as images. --import takes backgrounds made elsewhere, in-painted by a model, say.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.decoding import MAX_PIXELS
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest, require_folder
from dali_bgaug.storage import Location
from dali_bgaug.tiles import DILATION, fill, tile_geometry
from tools.cli import ALL, Part, pick, require, run, tool_parser
from tools.offline import photos
from tools.offline.command import add_scale_arguments, location, run_part
from tools.offline.detectors.imported import same_shape
from tools.offline.mask_images import find_image
from tools.offline.photos import check_size
from tools.offline.places import SCRATCH, Output, open_output, open_store
from tools.offline.report import Done, Report

BITS_PER_PIXEL = 2.0  # of a JPEG, for the estimate of the space it needs
SHAPE = 0.01  # of a side: models paint images of whole blocks, 8 pixels of 512, say


class _Images(NamedTuple):
    """The source of tiles that are kept as pixels."""

    photos: Path | None
    """The photos, whose foreground is filled; or"""
    imported: Path | None
    """a tree of backgrounds."""
    short_side: int
    quality: int


def write_tile_store(
    mask_store: Location,
    out: Location,
    *,
    photo_folder: Path | None = None,
    imported: Path | None = None,
    short_side: int = 256,
    quality: int = 90,
    workers: int = 1,
    part: Part = ALL,
    scratch: Path = SCRATCH,
) -> Report:
    """Write the tile store of a mask store; finished files are kept.

    As geometry; or as JPEGs of at most `short_side` pixels, of the photos in `photo_folder` or of the
    backgrounds in `imported`, one of the photo's relative path and stem each; a photo without one lends none.
    With a `part`, only the same part of the mask store must be there. scratch: for files on their way to and
    from an object store.

    Raises:
        UserError: missing or incomplete mask store, a photo or background that is gone, damaged or of another
            size, a tree without any background.
    """
    require(short_side >= 32, f"--short-side={short_side}: must be at least 32 pixels")
    require(1 <= quality <= 95, f"--quality={quality}: a JPEG quality is 1 to 95")
    images = None
    options: dict[str, Any] = {"rule": "only-bg-t", "dilation": DILATION, "tiles": "geometry"}
    if photo_folder or imported:
        images = _Images(photo_folder, imported, short_side, quality)
        options |= {"tiles": "pixels", "short_side": short_side, "quality": quality}
    if imported:
        require_folder(imported, "--import")
        options["rule"] = "imported"
    masks = open_store(mask_store, "--masks", scratch, part.slice)
    every = stores.list_files(masks.folder, "--masks", part.slice)
    output = open_output(out, scratch)
    stores.reject_foreign_files(output.sizes(), str(output), len(every))
    files = every[part.slice]
    keys = (key for file in files for key in stores.read_keys(file))
    # A part may lie wholly among photos that have none.
    if imported and part.count == 1 and not any(_background(imported, key) for key in keys):
        raise UserError(
            f"--import={imported}: has a background of no photo of {mask_store}; it must hold images of "
            "the same relative paths and stems"
        )
    sizes = [stores.count_rows(file) for file in files]
    jobs = [(file, output, images, options) for file in files]
    report = Report(tool="tiles", out=output, part=part, workers=workers, options=options)
    each = BITS_PER_PIXEL / 8 * short_side**2 * 1.4 if images else 100
    report.run(_write_file, jobs, sizes, [count * each for count in sizes])
    return report


def _write_file(masks: Path, output: Output, images: _Images | None, options: dict[str, Any]) -> Done:
    with output.file(masks.name) as path:
        return _make_file(masks, path, images, options)


def _make_file(masks: Path, path: Path, images: _Images | None, options: dict[str, Any]) -> Done:
    entries = stores.read_entries(masks)
    stamps = _stamps(entries, images.imported) if images and images.imported else ""
    source = stores.tile_source(entries.source, options, stamps)
    kept = stores.is_finished(path, source)
    if not kept:
        if images is None:
            tiles = tile_geometry(entries.box, entries.size)
            tiles[entries.flags > 0] = 0
        else:
            tiles, problems = [], []
            for row in range(len(entries.keys)):
                try:
                    tiles.append(_image(entries, row, images))
                except UserError as error:  # a BadPhoto too: it was good when its mask was made
                    problems.append(str(error))
            if problems:
                return Done(problems=problems)
        stores.write_tiles(path, tiles, entries.keys, entries.flags, options, source, stamps)
    missing = int(((stores.tile_bytes(path) == 0) & (entries.flags == 0)).sum())
    return Done(
        photos=len(entries.keys),
        kept=kept,
        read=int(entries.bytes.sum()) if images and images.photos else 0,
        written=path.stat().st_size,
        counts={"without a background": missing} if missing else {},
    )


def _image(entries: stores.Entries, row: int, images: _Images) -> bytes:
    """A tile as JPEG; empty for a photo that lends none."""
    key, size = entries.keys[row], tuple(entries.size[row].tolist())
    if entries.flags[row]:
        return b""
    if images.photos:
        place = images.photos / key
        data = photos.read_photo(place, int(entries.bytes[row]))
        photo = np.asarray(photos.decode_photo(data, place, entries.options.get("max_pixels", MAX_PIXELS)))
        check_size(place, photo.shape[1::-1], size)
        [geometry] = tile_geometry(entries.box[[row]], entries.size[[row]])
        return encode_tile(fill(photo, geometry), images.short_side, images.quality)
    place = _background(images.imported, key)
    if place is None:
        return b""
    image = photos.open_photo(place)
    if not same_shape(image.size, size, SHAPE):
        raise UserError(
            f"{place}: {image.width}x{image.height} pixels, but its photo is {size[0]}x{size[1]}, "
            "upright by its EXIF orientation; write it in that shape"
        )
    return encode_tile(np.asarray(image), images.short_side, images.quality)


def _stamps(entries: stores.Entries, tree: Path) -> str:
    """Hash of size and time of every background: one that changed since is not the one that was encoded."""
    lenders = (key for key, flags in zip(entries.keys, entries.flags, strict=True) if not flags)
    found = (_background(tree, key) for key in lenders)
    stats = (path and path.stat() for path in found)
    return digest([stat and (stat.st_size, stat.st_mtime_ns) for stat in stats])


def _background(tree: Path, key: str) -> Path | None:
    """The image of a photo's background, if there is one."""
    return find_image((tree / key).with_suffix(""))


def encode_tile(image: np.ndarray, short_side: int, quality: int) -> bytes:
    """A tiled background uint8 [H, W, 3] as a JPEG of at most so many pixels along its short side."""
    image = Image.fromarray(image)
    scale = short_side / min(image.size)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    image.save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return buffer.getvalue()


def main() -> None:
    parser = tool_parser("tools.tiles", __doc__)
    add = parser.add_argument
    add("--masks", type=location, default=Path("out/masks"), help="the mask store (%(default)s)")
    add("--out", type=location, default=Path("out/tiles"), help="the tile store (%(default)s)")
    kind = parser.add_mutually_exclusive_group().add_argument
    kind("--pixels", action="store_true", help="images in place of geometry; needs --photos")
    what = "backgrounds made elsewhere, by photo"
    kind("--import", dest="imported", type=Path, metavar="TREE", help=what)
    add("--photos", type=Path, help="the folder the masks were made from, for --pixels")
    add("--short-side", type=int, default=256, help="of images, pixels; larger ones shrink (%(default)s)")
    add("--quality", type=int, default=90, help="of images: JPEG quality (%(default)s)")
    add_scale_arguments(parser)
    args = parser.parse_args()
    require(args.photos or not args.pixels, "--pixels: needs --photos, the folder the masks were made from")
    options = {"photo_folder": args.photos if args.pixels else None}
    options |= pick(args, "imported", "short_side", "quality")
    run_part(args, write_tile_store, args.masks, **options)


if __name__ == "__main__":
    run(main)
