"""VOC's detection metric: average precision at eleven recalls, as in VOC 2007.

The rules of detectron2's `pascal_voc_evaluation.py`, by which the published figures were made: areas count
the last pixel, an overlap must exceed its threshold (VOC's own devkit takes one that reaches it), and a
`difficult` object is neither right nor wrong. What is left out: it rounds scores to three places and corners
to one, and its recalls of .3, .6 and .7 are not quite those numbers. COCO's rule, with 101 recalls, gives
figures that differ by points.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dali_bgaug.errors import UserError

THRESHOLDS = tuple(range(50, 100, 5))
"""Percent of overlap (intersection over union) at which precision is averaged."""


class Objects(NamedTuple):
    """The objects of a photo."""

    boxes: np.ndarray
    """float [N, 4]: xmin, ymin, xmax, ymax, the first and last pixel of the object, as VOC's files have."""
    labels: np.ndarray
    """int [N], from 0."""
    difficult: np.ndarray
    """bool [N]."""


class Detections(NamedTuple):
    """What a detector finds in a photo."""

    boxes: np.ndarray
    """float [N, 4], as an object's."""
    labels: np.ndarray
    """int [N], from 0."""
    scores: np.ndarray
    """float [N]; higher is surer."""


class VocScore(NamedTuple):
    """Average precision in percent."""

    ap50: float
    """Mean over classes, at an overlap of .5."""
    ap75: float
    ap: float
    """Mean over classes and THRESHOLDS."""
    classes: dict[str, float]
    """At .5, by class; those without an object that counts are missing, here and in the means."""


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] with others [N, 4] -> [N], the last pixel belonging to a box."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = (high - low + 1).clip(min=0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    return shared / ((box[2:] - box[:2] + 1).prod() + area - shared)


def eleven_points(right: np.ndarray, objects: int) -> float:
    """Average precision of detections, surest first: the mean of the best precision at recalls 0, .1 … 1.

    right: bool [N]. objects: to be found, at least 1.
    """
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    # Whole numbers: in floats, 3 of 10 need not reach a recall of .3.
    reached = 10 * hits[None] >= objects * np.arange(11)[:, None]
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def evaluate(
    truth: Mapping[str, Objects], found: Mapping[str, Detections], classes: Sequence[str]
) -> VocScore:
    """The metric of detections, by photo; a photo of `truth` that is not in `found` has none.

    Of equal scores, the photo that comes first in `truth` comes first, then the detection that does.

    Raises:
        UserError: detections of photos that `truth` does not have, or nothing that could be found.
    """
    if strangers := sorted(set(found) - set(truth)):
        raise UserError(f"{strangers[0]}: detections of a photo that is not in the test set; leave them out")
    table = {}
    for label, name in enumerate(classes):
        if curve := _class_precision(truth, found, label):
            table[name] = curve
    if not table:
        raise UserError(
            f"{len(truth)} photos: none has an object that is not difficult; give another test set"
        )
    mean = 100 * np.array(list(table.values())).mean(0)
    by_class = {name: 100 * curve[0] for name, curve in table.items()}
    return VocScore(float(mean[0]), float(mean[THRESHOLDS.index(75)]), float(mean.mean()), by_class)


def _class_precision(
    truth: Mapping[str, Objects], found: Mapping[str, Detections], label: int
) -> list[float]:
    """Average precision of one class at THRESHOLDS; empty if no object of it counts."""
    objects = {
        key: (one.boxes[mine], one.difficult[mine])
        for key, one in truth.items()
        if (mine := one.labels == label).any()
    }
    count = sum(int((~difficult).sum()) for _, difficult in objects.values())
    if not count:
        return []
    scores, nearest = [], []
    for key in truth:
        if key not in found:
            continue
        boxes, labels, values = found[key]
        for number in np.flatnonzero(labels == label):
            scores.append(values[number])
            overlap, place = 0.0, -1
            if key in objects:
                shares = overlaps(boxes[number], objects[key][0])
                place = int(shares.argmax())
                overlap = float(shares[place])
            nearest.append((key, place, overlap))
    order = np.argsort(-np.array(scores), kind="stable")
    surest_first = [nearest[number] for number in order]
    return [_precision_at(threshold / 100, surest_first, objects, count) for threshold in THRESHOLDS]


def _precision_at(
    threshold: float,
    nearest: Sequence[tuple[str, int, float]],
    objects: Mapping[str, tuple[np.ndarray, np.ndarray]],
    count: int,
) -> float:
    """Average precision at an overlap. nearest: each detection's photo, the object it covers best, how much.

    A detection is judged by that object alone: if it is taken, another that it also covers does not help.
    """
    taken: set[tuple[str, int]] = set()
    right = []
    for key, place, overlap in nearest:
        if overlap <= threshold:
            right.append(False)
        elif not objects[key][1][place]:
            right.append((key, place) not in taken)
            taken.add((key, place))
    return eleven_points(np.array(right, bool), count)
