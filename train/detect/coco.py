"""COCO's detection metric, by its authors' pycocotools (`pip install -e '.[detect]'`)."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dali_bgaug.errors import UserError
from train.detect.masks import compress

_NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


class CocoDetections(NamedTuple):
    """What a detector finds in a photo."""

    boxes: np.ndarray
    """float [N, 4]: left, top, right, bottom, between pixels."""
    labels: np.ndarray
    """int [N], from 0."""
    scores: np.ndarray
    """float [N]."""
    masks: tuple[str, ...] | None
    """Compressed run lengths, of Mask R-CNN."""
    size: tuple[int, int]
    """Height and width of the photo."""


def require_pycocotools() -> None:
    """A UserError unless the package is there, before hours of training."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"layout=coco: its metric needs pycocotools ({error}); pip install -e '.[detect]'"
        ) from error


def compress_masks(probabilities: np.ndarray) -> tuple[str, ...]:
    """Masks of detections, float [N, 1, H, W], from .5 on, as run lengths."""
    return tuple(compress(one) for one in probabilities[:, 0] >= 0.5)


def evaluate_coco(
    truth: Path, found: dict[str, CocoDetections], category_ids: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Average precision in percent by kind, `boxes` and, if there are any, `masks`: ap (mean over overlaps of
    .5 to .95), ap50, ap75, ap_small, ap_medium, ap_large; -1 of sizes that no object has.

    Args:
        truth: the file of instances.
        found: by the photos' numbers as text; one that is missing has no detections.
        category_ids: COCO's numbers of the labels.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [row for key, one in found.items() for row in _rows(int(key), one, category_ids)]
    kinds = {"boxes": "bbox"} | (
        {"masks": "segm"} if any(one.masks is not None for one in found.values()) else {}
    )
    if not rows:  # pycocotools takes no empty list
        return {kind: dict.fromkeys(_NAMES, 0.0) for kind in kinds}
    result = {}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        instances = COCO(str(truth))
        for kind, name in kinds.items():
            # Loaded anew for each: with masks, areas are those of masks.
            chosen = [{key: value for key, value in row.items() if key not in _OTHER[name]} for row in rows]
            judge = COCOeval(instances, instances.loadRes(chosen), name)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
            values = np.where(judge.stats[:6] < 0, -1, 100 * judge.stats[:6])
            result[kind] = dict(zip(_NAMES, values.tolist(), strict=True))
    return result


_OTHER = {"bbox": ("segmentation",), "segm": ("bbox",)}


def _rows(number: int, one: CocoDetections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for place, (left, top, right, bottom) in enumerate(one.boxes.tolist()):
        row = {
            "image_id": number,
            "category_id": category_ids[one.labels[place]],
            "score": float(one.scores[place]),
            "bbox": [left, top, right - left, bottom - top],
        }
        if one.masks is not None:
            row["segmentation"] = {"size": list(one.size), "counts": one.masks[place]}
        rows.append(row)
    return rows
