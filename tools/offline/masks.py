"""Write the mask store: one saliency map a photo, by a detector or imported from a folder tree of masks.

    python -m tools.masks --photos DATA                                        four detectors and a CRF, fused
    python -m tools.masks --photos DATA --detector rbd                         one of them, six times as fast
    python -m tools.masks --photos DATA --masks TREE                           masks made elsewhere
    python -m tools.masks --photos DATA --detector u2net --weights u2netp.onnx
    python -m tools.masks --photos DATA --detector ncut --weights RUN/backbone.pt   your backbone
    python -m tools.masks --photos DATA --detector deepusps --weights saliency.onnx  of tools.saliency_train

A photo's foreground is where saliency >= threshold. Photos that are no images, truncated or empty are left
out of the store and listed in the report, OUT-report.json. Further options of a detector are given as
key=value.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dali_bgaug import stores
from dali_bgaug.decoding import MAX_PIXELS
from dali_bgaug.errors import UserError
from dali_bgaug.files import digest
from dali_bgaug.orientation import read_orientation
from dali_bgaug.photo_tree import list_photos
from dali_bgaug.storage import Location
from dali_bgaug.tiles import tile_geometry
from tools.cli import ALL, Part, pick, require, run
from tools.offline import photos
from tools.offline.command import add_scale_arguments, location, run_part
from tools.offline.detectors import DETECTORS, Detector, DetectorOptions, Photo, options_of, read_options
from tools.offline.detectors.base import scale
from tools.offline.places import SCRATCH, Output, open_output
from tools.offline.report import Done, LeftOut, Report

MIN_AREA = 0.001
"""Of a foreground, as a share of the photo [ours]: a crop that must hold a few specks holds nothing else."""


def write_mask_store(
    photo_folder: Path,
    detector: DetectorOptions,
    out: Location,
    *,
    threshold: float | None = None,
    min_area: float = MIN_AREA,
    size: int = 256,
    max_pixels: int = MAX_PIXELS,
    per_file: int = 512,
    workers: int = 1,
    part: Part = ALL,
    scratch: Path = SCRATCH,
) -> Report:
    """Make masks into a store; finished files are kept. The report counts photos, empty, full_frame.

    threshold: None is the detector's own. min_area: a foreground of a smaller share of the photo counts as
    none. size: side of the stored map. max_pixels: photos of more are left out. per_file: photos a file.
    scratch: for files on their way to an object store.

    Raises:
        UserError: a bad option; a missing folder or mask; a photo or mask that cannot be read; all masks
        empty.
    """
    threshold = detector.THRESHOLD if threshold is None else threshold
    require(0 < threshold <= 1, f"--threshold={threshold}: must be above 0 and at most 1")
    require(0 <= min_area < 1, f"--min-area={min_area}: a share of the photo, at least 0 and below 1")
    require(size > 0 and size % 64 == 0, f"--size={size}: must be a positive multiple of 64")
    require(max_pixels >= 1, f"--max-pixels={max_pixels}: must be at least 1")
    require(per_file >= 1, f"--per-file={per_file}: must be at least 1")
    tree = list_photos(photo_folder)
    keys = tree.keys
    photos.reject_equal_names(keys)
    parts = [keys[start : start + per_file] for start in range(0, len(keys), per_file)]
    mine = parts[part.slice]
    _built(detector, detector.weights_time())  # what is wrong with it is said now, not by every worker
    options = {
        "detector": detector.name,
        "detector_options": detector.record(),
        "threshold": threshold,
        "min_area": min_area,
        "mask_size": size,
    }
    if max_pixels != MAX_PIXELS:  # stores of before there was a limit stay good
        options["max_pixels"] = max_pixels
    output = open_output(out, scratch)
    stores.reject_foreign_files(output.sizes(), str(output), len(parts))
    names = [stores.file_name(number, len(parts)) for number in range(len(parts))][part.slice]
    listing = digest(keys)
    jobs = ((photo_folder, detector, output, name, its, options, listing) for name, its in zip(names, mine))
    print(tree.describe())
    made = {"options": options, "oddities": tree.oddities}
    report = Report(tool="masks", out=output, part=part, workers=workers, **made)
    sizes = [len(keys) for keys in mine]
    report.run(_write_file, jobs, sizes, [count * size * size for count in sizes])
    if part.count > 1 or not sizes:  # of a part too few to tell
        return report
    if not report.photos:
        first = report.left_out[0]
        raise UserError(
            f"--photos={photo_folder}: none of its {len(report.left_out)} photos can be used "
            f"({first.photo}: {first.reason})"
        )
    if report.counts["empty"] == report.photos:
        raise UserError(
            f"no mask has a foreground: a pixel of at least {threshold:.0%} saliency; imported masks are "
            "black and white (0 and 255; of 0 and 1 give scale=1, of 16 bits that end at 255 scale=255), or "
            "take a lower --threshold; and another --out"
        )
    return report


def _write_file(
    photo_folder: Path,
    detector: DetectorOptions,
    output: Output,
    name: str,
    keys: list[str],
    options: dict[str, Any],
    listing: str,
) -> Done:
    stamps, problems = _stamps(photo_folder, detector, keys)
    if problems:
        return Done(problems=problems)
    with output.file(name) as path:
        return _make_file(photo_folder, detector, path, keys, options, stamps, listing)


def _make_file(
    photo_folder: Path,
    detector: DetectorOptions,
    path: Path,
    keys: list[str],
    options: dict[str, Any],
    stamps: list[tuple[int, int]],
    listing: str,
) -> Done:
    """Write one file of the store, unless it is there or something must be mended first."""
    source = digest(keys, options, stamps, listing)
    if stores.is_finished(path, source):
        return _done(path, stores.read_entries(path), kept=True)
    rows, left_out, problems = [], [], []
    opened = _open(photo_folder, keys, options.get("max_pixels", MAX_PIXELS), left_out, problems)
    for photo, saliency in _detect(_built(detector, detector.weights_time()), opened, problems):
        rows.append((photo.key, photo.bytes, *mask_row(saliency, options)))
    if problems:
        return Done(problems=problems)
    entries = stores.Entries(
        keys=[row[0] for row in rows],
        bytes=np.array([row[1] for row in rows], np.int64),
        box=np.array([row[3] for row in rows], np.int32).reshape(-1, 4),
        size=np.array([row[4] for row in rows], np.int32).reshape(-1, 2),
        flags=np.array([row[5] for row in rows], np.uint8),
        left_out=left_out,
        options=options,
        source=source,
        listing=listing,
    )
    side = options["mask_size"]
    saliency = np.array([row[2] for row in rows], np.uint8).reshape(-1, side, side)
    stores.write_masks(path, saliency, entries)
    return _done(path, entries)


def _stamps(
    photo_folder: Path, detector: DetectorOptions, keys: Sequence[str]
) -> tuple[list[tuple[int, int]], list[str]]:
    """Size and time of every file the maps are made from, and what is wrong with them.

    A file that changed since is not the one the maps were made from.
    """
    stamps, problems = [], []
    for key in keys:
        path = photo_folder / key
        try:
            stats = [path.stat(), *(source.stat() for source in detector.sources(key))]
        except OSError as error:
            problems.append(f"{error.filename}: cannot be read ({error.strerror}); fix that and run again")
            continue
        except UserError as error:
            try:
                photos.open_photo(path)
                problems.append(str(error))
                continue
            except photos.BadPhoto:  # is left out anyway
                stats = [path.stat()]
        stamps += [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return stamps, problems


def _done(path: Path, entries: stores.Entries, kept: bool = False) -> Done:
    flags = {"empty": stores.EMPTY, "full_frame": stores.FULL_FRAME}
    return Done(
        photos=len(entries.keys),
        kept=kept,
        read=int(entries.bytes.sum()),
        written=path.stat().st_size,
        left_out=[LeftOut(*item) for item in entries.left_out],
        counts={name: int((entries.flags & flag > 0).sum()) for name, flag in flags.items()},
    )


@lru_cache(maxsize=4)
def _built(detector: DetectorOptions, weights_time: int) -> Detector:
    """Once a process, since weights are large; others may come to lie at the same path."""
    return detector.build()


def _open(
    photo_folder: Path,
    keys: Sequence[str],
    max_pixels: int,
    left_out: list[tuple[str, str, str]],
    problems: list[str],
) -> Iterator[Photo]:
    """The photos that can be decoded; the others go to `left_out`, and to `problems` what cannot be read."""
    for key in keys:
        path = photo_folder / key
        try:
            data = photos.read_photo(path)
            image = np.asarray(photos.decode_photo(data, path, max_pixels))
            yield Photo(key, path, image, len(data), read_orientation(data))
        except photos.BadPhoto as error:
            left_out.append((key, error.reason, error.detail))
        except UserError as error:
            problems.append(str(error))


def _detect(
    detector: Detector, photos_: Iterator[Photo], problems: list[str]
) -> Iterator[tuple[Photo, np.ndarray]]:
    """Photos and their maps, a batch at a time; what the detector cannot do goes to `problems`."""
    while batch := list(islice(photos_, detector.batch)):
        if problems:
            return  # nothing will come of this file; fix that first
        yield from _detect_batch(detector, batch, problems)


def _detect_batch(
    detector: Detector, batch: list[Photo], problems: list[str]
) -> Iterator[tuple[Photo, np.ndarray]]:
    try:
        yield from zip(batch, detector(batch), strict=True)
    except MemoryError:
        raise
    except Exception as error:  # a library's own; say of which photo
        if len(batch) > 1:
            for photo in batch:
                yield from _detect_batch(detector, [photo], problems)
        elif isinstance(error, UserError):
            problems.append(str(error))
        else:
            problems.append(
                f"{batch[0].path}: the detector fails on it ({error!r}); if on this photo alone, take it out"
            )


def mask_row(saliency: np.ndarray, options: dict[str, Any]) -> tuple[np.ndarray, tuple, tuple, int]:
    """A map, uint8 [H, W] -> what the store holds of it: square map, box, (width, height), flags."""
    height, width = saliency.shape
    box = foreground_box(saliency, options["threshold"], options["min_area"])
    flags = stores.EMPTY if box[2] == 0 else 0
    if not flags and not tile_geometry(np.array([box]), np.array([[width, height]])).any():
        flags = stores.FULL_FRAME
    square = (options["mask_size"], options["mask_size"])
    return scale(saliency, square), box, (width, height), flags


def foreground_box(
    saliency: np.ndarray, threshold: float, min_area: float = 0.0
) -> tuple[int, int, int, int]:
    """xmin, ymin, xmax, ymax (half-open) of saliency >= threshold; four zeros if that is too small."""
    foreground = saliency >= stores.level(threshold)
    columns, rows = np.flatnonzero(foreground.any(axis=0)), np.flatnonzero(foreground.any(axis=1))
    if not len(columns) or foreground.mean() < min_area:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def choose_detector(
    name: str | None, masks: Path | None, weights: Path | None, overrides: list[str]
) -> DetectorOptions:
    """The detector a command line asks for: --masks means import; nothing means fused."""
    if masks is not None and name not in (None, "import"):
        raise UserError(f"--masks={masks}: only the detector 'import' reads masks, not --detector={name}")
    name = name or ("import" if masks else "fused")
    if name == "import" and masks is None:
        raise UserError("--detector import: give --masks, the folder tree of masks parallel to the photos")
    needed = options_of(name).WEIGHTS
    if needed and weights is None:
        raise UserError(f"--detector {name}: give --weights, {needed}")
    if weights is not None and not needed:
        raise UserError(f"--weights={weights}: the detector {name} has none")
    values = {"folder": str(masks)} if masks else {"weights": str(weights)} if weights else {}
    return read_options(name, values, overrides)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tools.masks", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder of class folders of JPEGs")
    add("--masks", type=Path, help="parallel folder tree of mask images: the detector 'import'")
    add("--detector", help=f"{', '.join(DETECTORS)} (fused, or import with --masks)")
    add("--weights", type=Path, help="of u2net, deepusps (.onnx) and ncut (backbone.pt)")
    add("--out", type=location, default=Path("out/masks"), help="the mask store (default %(default)s)")
    what = "foreground is saliency >= this (the detector's: .9; rbd .4, mc dsr hs fused .5)"
    add("--threshold", type=float, help=what)
    what = "a smaller share of the photo is no foreground (%(default)s)"
    add("--min-area", type=float, default=MIN_AREA, help=what)
    add("--size", type=int, default=256, help="side of the stored map (%(default)s)")
    what = "larger photos are left out and listed, and refused by the loader (%(default)s)"
    add("--max-pixels", type=int, default=MAX_PIXELS, help=what)
    add("--per-file", type=int, default=512, help="photos a file (%(default)s)")
    add_scale_arguments(parser)
    add("overrides", nargs="*", metavar="key=value", help="further options of the detector")
    args = parser.parse_intermixed_args()
    detector = choose_detector(args.detector, args.masks, args.weights, args.overrides)
    options = pick(args, "threshold", "min_area", "size", "max_pixels", "per_file")
    run_part(args, write_mask_store, args.photos, detector, on_gpu=detector.on_gpu, **options)


if __name__ == "__main__":
    run(main)
