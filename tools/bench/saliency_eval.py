"""Scores of saliency maps: F-measure, MAE, IoU and the precision-recall curve, against true masks.

    python -m tools.saliency_eval --predictions out/masks --truth TREE
    python -m tools.saliency_eval --predictions rbd=out/rbd u2net=out/u2net --truth TREE --out out/saliency
    python -m tools.saliency_eval --predictions out/masks --truth TREE --protocol deepusps --list test.txt

A prediction is a mask store or a folder tree of maps; TREE holds a mask of the same relative path and stem
for each, or for each photo of the list.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from PIL import Image

from dali_bgaug import markdown, stores
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import require_folder, sha256, write_text
from dali_bgaug.photo_tree import JPEG_ENDINGS, find_files, told
from tools.bench.map_scores import (
    THRESHOLDS,
    Curves,
    Protocol,
    Scores,
    StretchedScores,
    paper_table,
    score_map,
    score_stretched,
)
from tools.cli import default_workers, process, require, run, tool_parser
from tools.offline.lists import Line, Photos, file_of, read_lines
from tools.offline.mask_images import ENDINGS, Channel, Scale, read_grey

CHUNK = 32  # photos a job
TITLES = {"f_fixed": "F .5", "f_max": "max F", "f_adaptive": "adaptive F", "mae": "MAE", "iou": "IoU .5"}


class Reading(NamedTuple):
    """The meaning of images (`mask_images.read_grey`)."""

    scale: Scale = "auto"
    channel: Channel = "auto"


BY_KIND = Reading()


def evaluate(
    name: str,
    predictions: Path,
    truth: Path,
    workers: int = 1,
    reading: Reading = BY_KIND,
    truth_reading: Reading = BY_KIND,
    protocol: Protocol = "native",
    listed: Path | None = None,
) -> tuple[dict[str, Any], Curves | None]:
    """The mean scores of a mask store or a folder of maps, and its mean curves where the protocol has some.

    Every map must have a truth. In the native protocol a map of another size than its truth is scaled to it.

    Args:
        name: of the prediction.
        predictions, truth: folders of maps, and of true masks.
        workers: processes.
        reading, truth_reading: of maps that are images, and of true masks.
        protocol: how a map is compared (`map_scores`).
        listed: text file of the photos to take, in place of all that have a map.

    Raises:
        UserError: nothing to compare, a map or a listed photo without truth, an unreadable image.
    """
    require_folder(predictions, "--predictions")
    if not any(predictions.glob("*.h5")) and any((predictions / "masks").glob("*.h5")):
        raise UserError(f"--predictions={predictions}: is no store; did you mean {predictions / 'masks'}?")
    truths = _find_images(require_folder(truth, "--truth"), "--truth")
    if any(predictions.glob("*.h5")):
        files = stores.list_files(predictions, "--predictions")
        rows = ((path, row, key) for path in files for row, key in enumerate(stores.read_keys(path)))
        maps = [(str(Path(key).with_suffix("")), (path, row)) for path, row, key in rows]
    else:
        maps = sorted(_find_images(predictions, "--predictions").items())
    if listed:
        wanted = _read_list(listed, predictions, {key for key, _ in maps}, truths.keys())
        maps = [(key, place) for key, place in maps if key in wanted]
    items = [(key, place, truths.get(key)) for key, place in maps]
    if missing := [key for key, _, found in items if found is None]:
        raise UserError(
            f"--truth={truth}: has no mask for {missing[0]} ({len(missing)} of {len(items)} maps have "
            "none); it must hold one of the same relative path and stem for every map"
        )
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    score = partial(_score_chunk, protocol, reading, truth_reading)
    found = list(process(score, ((chunk,) for chunk in chunks), list(map(len, chunks)), workers, name))
    scores = [item for _, item in sorted(item for chunk, _ in found for item in chunk)]
    means = dict(zip(scores[0]._fields, np.mean(scores, axis=0).tolist(), strict=True))
    curves = Curves(*(sum(sums for _, sums in found) / len(items))) if protocol == "native" else None
    if curves:
        means["f_max"] = float(curves.f.max())
    result: dict[str, Any] = {"name": name, "photos": len(items), "protocol": protocol}
    if listed:
        result["list"] = {"name": listed.name, "sha256": sha256(listed)}
    result |= {key: round(value, 5) for key, value in means.items()}
    report = predictions.with_name(f"{predictions.name}-report.json")
    if report.is_file():
        result |= _timing(json.loads(report.read_text()))
    return result, curves


def _timing(report: dict[str, Any]) -> dict[str, Any]:
    """The time that the masks took, from the report of `tools.masks`."""
    if not report["photos_worked_on"] or report["files_kept_from_before"]:
        return {}
    taken = {name: report[name] for name in ("options", "photos_per_s", "workers")}
    return taken | {"cpu_seconds_per_photo": round(report["cpu_seconds"] / report["photos_worked_on"], 4)}


def _find_images(folder: Path, option: str) -> dict[str, Path]:
    """Relative path without suffix -> image."""
    tree = find_files(folder, option, ENDINGS)
    found: dict[str, Path] = {}
    for key in tree.keys:
        path = folder / key
        if (other := found.setdefault(os.path.splitext(key)[0], path)) != path:
            raise UserError(f"{option}={folder}: {other} and {path} are of one photo; leave the mask alone")
    if not found:
        raise UserError(
            f"{option}={folder}: no mask images in it; give a folder tree of PNGs, or a mask store"
        )
    if tree.oddities:
        print("\n  ".join([f"{folder}: {len(found)} images", *told(tree.oddities)]))
    return found


def _read_list(path: Path, predictions: Path, maps: Collection[str], truths: Collection[str]) -> set[str]:
    """The photos a list names: paths or names of files, one a line, with an image's ending or without.

    Raises:
        UserError: some have no map or no true mask, or a name may be of two photos.
    """
    keys = sorted({*maps, *truths})
    photos, named = Photos(keys), defaultdict(list)
    for key in keys:
        named[file_of(key)].append(key)
    named |= {key: [key] for key in keys}
    wanted: dict[str, Line] = {}
    for line in read_lines(path, "--list"):
        stem, ending = os.path.splitext(line.text.strip())
        if ending.lower() not in (*ENDINGS, *JPEG_ENDINGS):
            stem += ending
        found = photos.find(line.text) or photos.find(stem) or stem
        meant = named.get(found, [found])
        if len(meant) > 1:
            raise UserError(f"--list={path}: {line} may be {meant[0]} or {meant[1]}; give paths, not names")
        wanted.setdefault(meant[0], line)
    lacking = [
        f"{line} ({'no true mask' if key in maps else 'no map'})"
        for key, line in wanted.items()
        if not (key in maps and key in truths)
    ]
    if lacking:
        raise UserError(
            f"--list={path}: {len(lacking)} of its {len(wanted)} photos have no map in {predictions}, or no "
            f"true mask: {some(lacking)}; make them, or take these photos off the list"
        )
    return set(wanted)


def _score_chunk(
    protocol: Protocol,
    reading: Reading,
    truth_reading: Reading,
    items: list[tuple[str, Path | tuple[Path, int], Path]],
) -> tuple[list[tuple[str, Scores | StretchedScores]], np.ndarray]:
    """The scores by key, and the sums of the curves, [3, 256]; 0 where the protocol has none."""
    scores: list[tuple[str, Scores | StretchedScores]] = []
    sums = np.zeros((3, THRESHOLDS))
    for (key, _, truth_path), saliency in zip(items, _read_maps(items, reading), strict=True):
        truth = np.asarray(read_grey(truth_path, *truth_reading)) >= 128
        if protocol == "deepusps":
            scores.append((key, score_stretched(saliency, truth)))
            continue
        height, width = truth.shape
        if saliency.shape != truth.shape:
            resized = Image.fromarray(saliency).resize((width, height), Image.Resampling.BILINEAR)
            saliency = np.asarray(resized)
        item, curves = score_map(saliency, truth)
        scores.append((key, item))
        sums += curves
    return scores, sums


def _read_maps(
    items: list[tuple[str, Path | tuple[Path, int], Path]], reading: Reading
) -> Iterator[np.ndarray]:
    files = sorted({place[0] for _, place, _ in items if isinstance(place, tuple)})
    with stores.StoreReader(files) as store:
        for _, place, _ in items:
            if isinstance(place, Path):
                yield np.asarray(read_grey(place, *reading))
            else:
                path, row = place
                yield store.saliency(files.index(path), row)


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, in percent."""
    columns = [column for column in TITLES if column in results[0]]
    titles = ("masks", "photos", *(TITLES[column] for column in columns), "CPU s/photo")
    rows = []
    for result in results:
        values = [f"{100 * result[column]:.1f}" for column in columns]
        seconds = f"{result['cpu_seconds_per_photo']:.3f}" if "cpu_seconds_per_photo" in result else ""
        rows.append([result["name"], str(result["photos"]), *values, seconds])
    return markdown.table(titles, rows, words=1)


def draw(curves: dict[str, Curves], out: Path) -> None:
    """Write the precision-recall curves as a PNG."""
    from dali_bgaug.figures import plt, save  # slow to import

    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    for name, curve in curves.items():
        axis.plot(curve.recall, curve.precision, label=name)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axis.set(title="mean over photos, 256 thresholds")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    save(figure, out, dpi=120)


def _scale(text: str) -> Scale:
    """--scale: `auto`, or a number above 0."""
    if text == "auto":
        return text
    if not (value := float(text)) > 0:
        raise ValueError(text)
    return value


def main() -> None:
    parser = tool_parser("tools.saliency_eval", __doc__)
    add = parser.add_argument
    what = "mask stores or folder trees of maps"
    add("--predictions", nargs="+", required=True, metavar="[NAME=]FOLDER", help=what)
    add("--truth", type=Path, required=True, help="folder tree of true masks")
    for of, images in (("", "maps"), ("truth-", "true masks")):
        what = f"what white is in images of {images}: 1, 255, 65535 (auto: by their kind)"
        add(f"--{of}scale", type=_scale, default="auto", help=what)
        what = f"what of images of {images} is looked at (auto: their transparency, where there is some)"
        add(f"--{of}channel", choices=get_args(Channel), default="auto", help=what)
    what = "native: at the true mask's size; deepusps: at 432 x 432, F and MAE, as in the paper's Table 1"
    add("--protocol", choices=get_args(Protocol), default="native", help=f"{what} (%(default)s)")
    what = "only the photos named in this text file, one a line: path or file's name, with ending or without"
    add("--list", type=Path, metavar="FILE", help=what)
    add("--paper", action="store_true", help="with deepusps: the figures of the paper's Table 1, too")
    what = "OUT.json and OUT.md; native: OUT.png, too (%(default)s)"
    add("--out", type=Path, default=Path("out/saliency"), help=what)
    add("--workers", type=int, default=default_workers(), help="processes (all CPUs)")
    args = parser.parse_args()
    readings = Reading(args.scale, args.channel), Reading(args.truth_scale, args.truth_channel)
    require(
        args.protocol == "deepusps" or not args.paper,
        "--paper: its figures are by another protocol; give --protocol deepusps",
    )
    results: list[dict[str, Any]] = []
    curves: dict[str, Curves] = {}
    for word in args.predictions:
        name, equals, folder = word.partition("=")
        folder = Path(folder if equals else word)
        name = name if equals else folder.name
        if name in [result["name"] for result in results]:
            raise UserError(f"--predictions: two are called '{name}'; name them, NAME=FOLDER")
        job = (name, folder, args.truth, args.workers, *readings, args.protocol, args.list)
        result, curve = evaluate(*job)
        results.append(result)
        if curve:
            curves[name] = curve
    text = table(results) + (f"\n\n{paper_table()}" if args.paper else "")
    kinds = ("json", "md", "png") if curves else ("json", "md")
    out = {kind: args.out.with_name(f"{args.out.name}.{kind}") for kind in kinds}
    write_text(out["json"], json.dumps(results, indent=1) + "\n")
    write_text(out["md"], text + "\n")
    if curves:
        draw(curves, out["png"])
    print(text)
    print("(in percent, CPU s/photo apart)", *out.values())


if __name__ == "__main__":
    run(main)
