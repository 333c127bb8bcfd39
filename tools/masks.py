"""Write the mask store: one saliency map a photo, imported from a parallel folder tree of PNGs.

    python -m tools.masks --photos DATA --masks TREE --out out/masks

For DATA/cat/1.jpg the mask is TREE/cat/1.png, of the photo's size, any grey level as saliency. A photo's
foreground is where saliency >= threshold.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.errors import UserError
from tools import photos
from tools._cli import default_workers, process, run
from tools.tiles import background_strip

SHOWN = 20  # bad files named in one message


def write_mask_store(
    photo_folder: Path,
    mask_folder: Path,
    out: Path,
    *,
    threshold: float = 0.9,
    size: int = 256,
    per_file: int = 1024,
    workers: int = 1,
) -> dict[str, Any]:
    """Import masks into a store; finished files are kept. Returns counts: photos, empty, full_frame.

    Raises:
        UserError: a missing folder, photo or mask, a damaged photo, a mask of another size than its photo.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"--threshold={threshold}: must be above 0 and at most 1")
    if size % 64 or size < 64:
        raise UserError(f"--size={size}: must be a positive multiple of 64")
    keys = photos.list_photos(photo_folder)
    photos.reject_equal_names(keys)
    if not mask_folder.is_dir():
        raise UserError(
            f"--masks={mask_folder}: not a folder; give the folder tree of masks beside the photos"
        )
    for key in keys:
        photos.find_mask(mask_folder, key)
    options = {"detector": "import", "threshold": threshold, "mask_size": size}
    parts = [keys[i : i + per_file] for i in range(0, len(keys), per_file)]
    stores.reject_foreign_files(out, len(parts))
    jobs = [
        (photo_folder, mask_folder, out / stores.file_name(i, len(parts)), part, options)
        for i, part in enumerate(parts)
    ]
    problems: list[str] = []
    flags: list[np.ndarray] = []
    for found, bad in process(_write_file, jobs, [len(part) for part in parts], workers, "masks"):
        flags.append(np.array(found, np.uint8))
        problems += bad
    if problems:
        shown = "\n  ".join(sorted(problems)[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{len(problems)} of {len(keys)} photos or masks cannot be used:\n  {shown}{more}")
    every = np.concatenate(flags)
    counts = {
        "photos": len(keys),
        "empty": int((every & stores.EMPTY > 0).sum()),
        "full_frame": int((every & stores.FULL_FRAME > 0).sum()),
    }
    if counts["empty"] == len(keys):
        raise UserError(
            f"--masks={mask_folder}: no mask has a pixel of at least {threshold:.0%} white; "
            "masks are black and white (0 and 255), or take a lower --threshold and another --out"
        )
    return counts


def _write_file(
    photo_folder: Path, mask_folder: Path, path: Path, keys: list[str], options: dict
) -> tuple[list[int], list[str]]:
    """Write one file; returns its flags, or, if it cannot be written, everything that is wrong."""
    pairs = [(photo_folder / key, photos.find_mask(mask_folder, key)) for key in keys]
    # A file that changed since is not the one the maps were made from.
    stamps = [(s.st_size, s.st_mtime_ns) for pair in pairs for s in (path.stat() for path in pair)]
    source = stores.digest(keys, options, stamps)
    if stores.is_finished(path, source):
        return stores.read_entries(path).flags.tolist(), []
    rows, problems = [], []
    for photo, mask in pairs:
        try:
            rows.append(_import_mask(photo, mask, options))
        except UserError as error:
            problems.append(str(error))
    if problems:
        return [], problems
    saliency, box, size, flags = (np.stack(column) for column in zip(*rows, strict=True))
    entries = stores.Entries(keys=keys, box=box, size=size, flags=flags, options=options, source=source)
    stores.write_masks(path, saliency, entries)
    return flags.tolist(), []


def _import_mask(photo: Path, mask: Path, options: dict) -> tuple[np.ndarray, ...]:
    width, height = photos.open_photo(photo).size
    saliency = photos.open_saliency(mask, photo, (width, height))
    box = foreground_box(saliency, options["threshold"])
    flag = stores.EMPTY if box[2] == 0 else 0
    if not flag and background_strip(box, (width, height)) is None:
        flag = stores.FULL_FRAME
    square = shrink(saliency, options["mask_size"])
    return square, np.array(box, np.int32), np.array([width, height], np.int32), np.uint8(flag)


def foreground_box(saliency: np.ndarray, threshold: float) -> tuple[int, int, int, int]:
    """xmin, ymin, xmax, ymax (half-open) of saliency >= threshold; four zeros if there is none."""
    foreground = saliency >= threshold * 255
    columns, rows = np.flatnonzero(foreground.any(axis=0)), np.flatnonzero(foreground.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def shrink(saliency: np.ndarray, size: int) -> np.ndarray:
    """Stretch a map to uint8 [size, size]; a two-valued mask stays two-valued, its edge where it was."""
    square = np.asarray(Image.fromarray(saliency).resize((size, size), Image.Resampling.BILINEAR))
    low, high = saliency.min(), saliency.max()
    if low < high and np.isin(saliency, (low, high)).all():
        # Averaging would make the edge grey, and a threshold of .9 would then eat into the object.
        square = np.where(square >= (int(low) + int(high) + 1) // 2, high, low).astype(np.uint8)
    return square


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.masks", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of class folders of JPEGs")
    parser.add_argument("--masks", type=Path, required=True, help="parallel folder tree of PNG masks")
    parser.add_argument(
        "--out", type=Path, default=Path("out/masks"), help="the mask store (default %(default)s)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.9, help="foreground is saliency >= this (%(default)s)"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the stored map (%(default)s)")
    parser.add_argument("--per-file", type=int, default=1024, help="photos a file (%(default)s)")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (all CPUs)")
    args = parser.parse_args()
    counts = write_mask_store(
        args.photos,
        args.masks,
        args.out,
        threshold=args.threshold,
        size=args.size,
        per_file=args.per_file,
        workers=args.workers,
    )
    print(
        f"{args.out}: masks of {counts['photos']} photos, "
        f"{counts['empty']} empty, {counts['full_frame']} full-frame"
    )


if __name__ == "__main__":
    run(main)
