"""Scores of saliency maps: F-measure, MAE, IoU and the precision-recall curve, against true masks.

    python -m tools.saliency_eval --predictions out/masks --truth TREE
    python -m tools.saliency_eval --predictions rbd=out/rbd u2net=out/u2net --truth TREE --out out/saliency

A prediction is a mask store or a folder tree of maps; TREE holds a mask of the same relative path and stem
for each.
"""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.errors import UserError
from dali_bgaug.files import require_folder, write_text
from dali_bgaug.photo_tree import find_files, told
from tools import markdown
from tools.cli import default_workers, process, run, tool_parser
from tools.offline.mask_images import ENDINGS, Channel, Scale, read_grey

BETA2 = 0.3
THRESHOLDS = 256
CHUNK = 32  # photos a job


class Scores(NamedTuple):
    """The scores of one map."""

    f_fixed: float
    """F at a threshold of .5, as the paper's lineage prints it."""
    f_max: float
    """F at the best of 256 thresholds, of the mean over the set at each."""
    f_adaptive: float
    """F at twice the map's mean, at most 1."""
    mae: float
    """Mean absolute difference of the soft map."""
    iou: float
    """Intersection over union at .5."""


class Curves(NamedTuple):
    """Precision, recall and F at every threshold t / 255, saliency >= t: float64 [256] each."""

    precision: np.ndarray
    recall: np.ndarray
    f: np.ndarray


def score_map(saliency: np.ndarray, truth: np.ndarray) -> tuple[Scores, Curves]:
    """Compare a map, uint8 [H, W], with its truth, bool [H, W] (Achanta et al. 2009; Borji et al. 2015).

    Where the truth is empty, precision and recall are 0.
    """
    inside = np.bincount(saliency[truth], minlength=THRESHOLDS)
    outside = np.bincount(saliency[~truth], minlength=THRESHOLDS)
    hits, false_alarms = (np.cumsum(counts[::-1])[::-1] for counts in (inside, outside))
    curves = _f_measure(hits, hits + false_alarms, int(truth.sum()))
    mean = saliency.mean() / 255
    values = saliency / 255
    adaptive = values >= min(2 * mean, 1)
    fixed = values >= 0.5
    union = int((fixed | truth).sum())
    scores = Scores(
        f_fixed=_f_of(fixed, truth),
        f_max=float(curves.f.max()),
        f_adaptive=_f_of(adaptive, truth),
        mae=float(np.abs(values - truth).mean()),
        iou=int((fixed & truth).sum()) / union if union else 1.0,
    )
    return scores, curves


def _f_of(found: np.ndarray, truth: np.ndarray) -> float:
    hits = np.array([(found & truth).sum()])
    return float(_f_measure(hits, np.array([found.sum()]), int(truth.sum())).f[0])


def _f_measure(hits: np.ndarray, found: np.ndarray, true: int) -> Curves:
    precision = hits / np.maximum(found, 1)
    recall = hits / max(true, 1)
    weighted = BETA2 * precision + recall
    f = (1 + BETA2) * precision * recall / np.where(weighted > 0, weighted, 1)
    return Curves(precision, recall, f)


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
) -> tuple[dict[str, Any], Curves]:
    """The mean scores of a mask store or a folder of maps, and its mean curves.

    reading, truth_reading: of maps that are images, and of true masks.

    Every map must have a truth. A map of another size than its truth is scaled to it.

    Raises:
        UserError: nothing to compare, a map without truth, an unreadable image.
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
    items = [(key, place, truths.get(key)) for key, place in maps]
    if missing := [key for key, _, found in items if found is None]:
        raise UserError(
            f"--truth={truth}: has no mask for {missing[0]} ({len(missing)} of {len(items)} maps have "
            "none); it must hold one of the same relative path and stem for every map"
        )
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    score = partial(_score_chunk, reading, truth_reading)
    found = list(process(score, ((chunk,) for chunk in chunks), list(map(len, chunks)), workers, name))
    curves = Curves(*(sum(sums for _, sums in found) / len(items)))
    scores = sorted(item for chunk, _ in found for item in chunk)
    means = dict(zip(Scores._fields, np.mean([item for _, item in scores], axis=0).tolist(), strict=True))
    means["f_max"] = float(curves.f.max())
    result = {"name": name, "photos": len(items), **{key: round(value, 5) for key, value in means.items()}}
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


def _score_chunk(
    reading: Reading, truth_reading: Reading, items: list[tuple[str, Path | tuple[Path, int], Path]]
) -> tuple[list[tuple[str, Scores]], np.ndarray]:
    """The scores by key, and the sums of the curves, [3, 256]."""
    scores, sums = [], np.zeros((3, THRESHOLDS))
    for (key, _, truth_path), saliency in zip(items, _read_maps(items, reading), strict=True):
        truth = np.asarray(read_grey(truth_path, *truth_reading)) >= 128
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
    titles = ("masks", "photos", "F .5", "max F", "adaptive F", "MAE", "IoU .5", "CPU s/photo")
    rows = []
    for result in results:
        values = [f"{100 * result[column]:.1f}" for column in Scores._fields]
        seconds = f"{result['cpu_seconds_per_photo']:.3f}" if "cpu_seconds_per_photo" in result else ""
        rows.append([result["name"], str(result["photos"]), *values, seconds])
    return markdown.table(titles, rows, words=1)


def draw(curves: dict[str, Curves], out: Path) -> None:
    """Write the precision-recall curves as a PNG."""
    from tools.figures import plt, save  # slow to import

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
    add("--out", type=Path, default=Path("out/saliency"), help="OUT.json, OUT.md and OUT.png (%(default)s)")
    add("--workers", type=int, default=default_workers(), help="processes (all CPUs)")
    args = parser.parse_args()
    reading = Reading(args.scale, args.channel)
    truth_reading = Reading(args.truth_scale, args.truth_channel)
    results, curves = [], {}
    for word in args.predictions:
        name, equals, folder = word.partition("=")
        folder = Path(folder if equals else word)
        name = name if equals else folder.name
        if name in curves:
            raise UserError(f"--predictions: two are called '{name}'; name them, NAME=FOLDER")
        result, curves[name] = evaluate(name, folder, args.truth, args.workers, reading, truth_reading)
        results.append(result)
    out = {kind: args.out.with_name(f"{args.out.name}.{kind}") for kind in ("json", "md", "png")}
    write_text(out["json"], json.dumps(results, indent=1) + "\n")
    write_text(out["md"], table(results) + "\n")
    draw(curves, out["png"])
    print(table(results))
    print(f"(in percent, CPU s/photo apart) {out['json']} {out['md']} {out['png']}")


if __name__ == "__main__":
    run(main)
