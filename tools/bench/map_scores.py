"""Scores of a saliency map against its true mask, by two protocols, and the paper's figures by the second.

native: at the true mask's own size, all measures, as in pysodmetrics. deepusps: at 432 x 432, F and MAE, as
the code of DeepUSPS does it (T. Nguyen et al. 2019), on which the paper's Table 1 rests.
"""

from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from dali_bgaug import markdown

Protocol = Literal["native", "deepusps"]
BETA2 = 0.3
THRESHOLDS = 256
SIDE = 432  # of maps and true masks in deepusps


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


class StretchedScores(NamedTuple):
    """The scores of one map by the protocol deepusps."""

    f_fixed: float
    """F of what is above .5."""
    mae: float
    """Mean absolute difference of the soft map."""


def score_stretched(saliency: np.ndarray, truth: np.ndarray) -> StretchedScores:
    """Compare a map, uint8 [H, W], with its truth, bool [h, w], of any sizes, both stretched to 432 x 432.

    Where nothing is predicted precision is 1, where the truth is empty recall is 1, where both are 0 F is.
    """
    # Not as bytes: rounding would move what lies between 127 and 128 to a side of .5.
    levels = Image.fromarray(saliency.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(levels, np.float64) / 255
    true = np.asarray(Image.fromarray(truth).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    found = values > 0.5
    hits = int((found & true).sum())
    precision = hits / int(found.sum()) if found.any() else 1.0
    recall = hits / int(true.sum()) if true.any() else 1.0
    weighted = BETA2 * precision + recall
    f = (1 + BETA2) * precision * recall / weighted if weighted else 0.0
    return StretchedScores(f, float(np.abs(values - true).mean()))


class Published(NamedTuple):
    """Figures a paper printed, in percent."""

    f: float
    mae: float
    f_error: float | None = None
    """Standard error of F's mean, over five trainings."""

    def __str__(self) -> str:
        error = "" if self.f_error is None else f" ± {self.f_error:.1f}"
        return f"{self.f:.1f}{error} / {self.mae:.1f}"


TABLE_1 = {
    "DeepUSPS": {
        "MSRA-B": Published(90.3, 4.0),
        "ECSSD": Published(87.4, 6.3),
        "DUT": Published(73.6, 6.3),
    },
    "DeepUSPS, reproduced": {
        "MSRA-B": Published(90.5, 3.9, 0.1),
        "ECSSD": Published(87.9, 6.3, 0.1),
        "DUT": Published(72.1, 6.8, 0.2),
    },
    "DeepUSPS²": {
        "MSRA-B": Published(91.3, 3.6, 0.0),
        "ECSSD": Published(90.0, 5.4, 0.0),
        "DUT": Published(71.1, 6.9, 0.0),
    },
}
"""By detector and data set: Ryali, Schwab and Morcos, "Background Augmentations for Self-Supervised Learning"
(2021), Table 1. Read from the paper's text, where the cells of the reproduced row are scattered."""


def paper_table() -> str:
    """The figures of the paper's Table 1 as a Markdown table, in percent."""
    sets = list(TABLE_1["DeepUSPS²"])
    rows = [[name, *(str(row[data_set]) for data_set in sets)] for name, row in TABLE_1.items()]
    return markdown.table(["Table 1, F .5 / MAE", *sets], rows, words=1)
