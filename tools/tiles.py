"""Write the tile store: every photo's tiled background, made from its own background.

    python -m tools.tiles --photos DATA --masks out/masks --out out/tiles

The foreground's bounding box is filled by repeating the larger of the background strips beside it, as
ImageNet-9's Only-BG-T does (Xiao et al., "Noise or Signal", 2020), at the photo's own resolution.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from dali_bgaug import stores
from dali_bgaug.errors import UserError
from tools import photos
from tools._cli import ALL, Part, add_scale_arguments, default_workers, parse_part, run
from tools.photos import check_size
from tools.report import Done, Report

MIN_STRIP_PIXELS, MIN_STRIP_FRACTION = 8, 0.05
DILATION = 3  # pixels around the box: a mask's rim is never exact, and a leaking rim repeats in every tile
BITS_PER_PIXEL = 2.0  # of a JPEG, for the estimate of the space it needs

Box = tuple[int, int, int, int]


def dilate(box: Box, size: tuple[int, int], pixels: int = DILATION) -> Box:
    """Grow xmin, ymin, xmax, ymax by `pixels` on every side, within a photo of (width, height)."""
    x0, y0, x1, y1 = box
    width, height = size
    return max(x0 - pixels, 0), max(y0 - pixels, 0), min(x1 + pixels, width), min(y1 + pixels, height)


def background_strip(box: Box, size: tuple[int, int]) -> Box | None:
    """The strip of background that tiles the (dilated) box: full height or full width, as xmin … ymax.

    The side strip if its area is larger, else the top or bottom one; of two sides the wider (left only if it
    is wider). A strip thinner than 8 pixels or 5 % of its side is not used; None if there is no other.
    """
    width, height = size
    x0, y0, x1, y1 = dilate(box, size)
    left, right, top, bottom = x0, width - x1, y0, height - y1
    side = (0, 0, left, height) if left > right else (x1, 0, width, height)
    flat = (0, 0, width, top) if top > bottom else (0, y1, width, height)
    across, along = max(left, right), max(top, bottom)
    side_fits = across >= max(MIN_STRIP_PIXELS, MIN_STRIP_FRACTION * width)
    flat_fits = along >= max(MIN_STRIP_PIXELS, MIN_STRIP_FRACTION * height)
    if side_fits and (across * height > along * width or not flat_fits):
        return side
    return flat if flat_fits else None


def tiled_background(photo: np.ndarray, box: Box, flags: int) -> np.ndarray:
    """Fill the foreground's box of uint8 [H, W, 3] with background; outside the dilated box nothing changes.

    An EMPTY photo is returned as it is; a FULL_FRAME one gets its box filled by a blur of what is around it.
    """
    if flags & stores.EMPTY:
        return photo
    height, width = photo.shape[:2]
    strip = background_strip(box, (width, height))
    x0, y0, x1, y1 = dilate(box, (width, height))
    result = photo.copy()
    if strip is None:
        result[y0:y1, x0:x1] = _blur_inwards(photo, (x0, y0, x1, y1))[y0:y1, x0:x1]
        return result
    # A grid anchored at the photo's corner, unscaled and unmirrored. A strip is full height or full width,
    # so one of the two directions is the identity.
    for left, right, source_x in _repeats(x0, x1, strip[0], strip[2]):
        for top, bottom, source_y in _repeats(y0, y1, strip[1], strip[3]):
            source = photo[source_y : source_y + bottom - top, source_x : source_x + right - left]
            result[top:bottom, left:right] = source
    return result


def _repeats(start: int, end: int, low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Pixels start … end - 1 cut where [low, high), repeated from 0 on, begins anew: (start, end, source)."""
    while start < end:
        within = start % (high - low)
        stop = min(end, start - within + high - low)
        yield start, stop, low + within
        start = stop


def _blur_inwards(photo: np.ndarray, box: Box) -> np.ndarray:
    """Normalised convolution: a wide blur of the pixels outside the box, weighted by where they are."""
    outside = np.full(photo.shape[:2], 255, np.uint8)
    outside[box[1] : box[3], box[0] : box[2]] = 0
    if not outside.any():  # nothing to blur from: the photo's mean colour
        return np.broadcast_to(photo.mean(axis=(0, 1)).round().astype(np.uint8), photo.shape)
    small = (max(1, photo.shape[1] // 4), max(1, photo.shape[0] // 4))
    blur = ImageFilter.GaussianBlur(max(small) / 4)
    weight = Image.fromarray(outside).resize(small, Image.Resampling.BOX)
    seen = (photo.astype(np.uint16) * (outside[..., None] // 255)).astype(np.uint8)
    colour = Image.fromarray(seen).resize(small, Image.Resampling.BOX)
    amount = np.asarray(weight.filter(blur), np.float32)[..., None] / 255
    mean = photo[outside > 0].mean(axis=0)  # where the blur does not reach
    mixed = (np.asarray(colour.filter(blur), np.float32) + 0.02 * mean) / (amount + 0.02)
    wide = Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).resize(
        photo.shape[1::-1], Image.Resampling.BILINEAR
    )
    return np.asarray(wide)


def write_tile_store(
    photo_folder: Path,
    mask_store: Path,
    out: Path,
    *,
    short_side: int = 256,
    quality: int = 90,
    workers: int = 1,
    part: Part = ALL,
) -> Report:
    """Write the tile store of a mask store; finished files are kept.

    With a `part`, only the same part of the mask store must be there.

    Raises:
        UserError: missing or incomplete mask store, a photo that is gone, damaged or has changed size.
    """
    if short_side < 32:
        raise UserError(f"--short-side={short_side}: must be at least 32 pixels")
    if not 1 <= quality <= 95:
        raise UserError(f"--quality={quality}: a JPEG quality is 1 to 95")
    options = {"rule": "only-bg-t", "short_side": short_side, "quality": quality, "dilation": DILATION}
    every = stores.list_files(mask_store, "--masks", part.slice)
    stores.reject_foreign_files(out, len(every))
    files = every[part.slice]
    sizes = [stores.count_rows(file) for file in files]
    jobs = [(photo_folder, file, out / file.name, options) for file in files]
    report = Report(tool="tiles", out=out, part=part, workers=workers, options=options)
    report.run(
        _write_file, jobs, sizes, [count * BITS_PER_PIXEL / 8 * short_side**2 * 1.4 for count in sizes]
    )
    return report


def _write_file(photo_folder: Path, masks: Path, path: Path, options: dict) -> Done:
    entries = stores.read_entries(masks)
    source = stores.digest(entries.source, options)
    kept = stores.is_finished(path, source)
    if not kept:
        jpegs, problems = [], []
        rows = zip(entries.keys, entries.bytes, entries.box, entries.size, entries.flags, strict=True)
        for key, count, box, size, flags in rows:
            place = photo_folder / key
            try:
                photo = np.asarray(photos.decode_photo(photos.read_photo(place, int(count)), place))
                check_size(place, photo.shape[1::-1], size)
            except UserError as error:  # a BadPhoto too: it was good when its mask was made
                problems.append(str(error))
            else:
                jpegs.append(_encode(tiled_background(photo, tuple(box.tolist()), int(flags)), options))
        if problems:
            return Done(problems=problems)
        stores.write_tiles(path, jpegs, entries.keys, entries.flags, options, source)
    return Done(
        photos=len(entries.keys), kept=kept, read=int(entries.bytes.sum()), written=path.stat().st_size
    )


def _encode(image: np.ndarray, options: dict) -> bytes:
    picture = Image.fromarray(image)
    scale = options["short_side"] / min(picture.size)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    picture.save(buffer := io.BytesIO(), "JPEG", quality=options["quality"])
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.tiles", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="the folder the masks were made from")
    parser.add_argument("--masks", type=Path, default=Path("out/masks"), help="the mask store (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/tiles"), help="the tile store (%(default)s)")
    parser.add_argument(
        "--short-side", type=int, default=256, help="pixels; larger tiles shrink (%(default)s)"
    )
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality (%(default)s)")
    add_scale_arguments(parser)
    args = parser.parse_args()
    write_tile_store(
        args.photos,
        args.masks,
        args.out,
        short_side=args.short_side,
        quality=args.quality,
        workers=args.workers or default_workers(),
        part=parse_part(args.part),
    ).finish()


if __name__ == "__main__":
    run(main)
