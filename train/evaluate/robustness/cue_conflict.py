"""Shape bias (Geirhos et al. 2019): of one object's shape in another's texture, which does a classifier see?

….png are named shapeN-textureM. Of 16 categories the one is chosen whose classes have the highest mean
probability; photos of one category in shape and texture alike say nothing and are left out.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from dali_bgaug.errors import some
from train.evaluate.robustness.imagenet import CATEGORIES, imagenet_columns
from train.evaluate.robustness.protocol import UNREAD
from train.evaluate.robustness.scores import share
from train.evaluate.robustness.source import Found, Source, list_photos, set_counts

NAMES = tuple(CATEGORIES)
PHOTOS = 1280
EXPECTED = "the cue-conflict stimuli (CATEGORY/shapeN-textureM.png)"
_NAME = re.compile(r"(?:.*_)?([a-z]+)[0-9]+-([a-z]+)[0-9]+\.[a-z]+", re.IGNORECASE)


class Cues(NamedTuple):
    """What a photo is, by either cue."""

    shape: str
    texture: str


def read_cues(name: str) -> Cues | None:
    """Shape and texture by a file's name, which experiments put a prefix before; None: no such name."""
    match = _NAME.fullmatch(name)
    cues = match and Cues(match[1], match[2])
    return cues if cues and set(cues) <= set(NAMES) else None


def shape_bias(cues: list[Cues], decisions: list[str]) -> dict[str, Any]:
    """Shape bias: decisions for the shape, of those for shape or texture.

    Args:
        cues: of photos, whose two differ.
        decisions: categories.

    Returns:
        `value`; `shape`, `texture` and `other`, counts of decisions; `by_category`, the same by shape.
    """
    counts = {name: {"shape": 0, "texture": 0, "other": 0} for name in sorted({cue.shape for cue in cues})}
    for cue, decision in zip(cues, decisions, strict=True):
        kind = {cue.texture: "texture", cue.shape: "shape"}.get(decision, "other")
        counts[cue.shape][kind] += 1
    total = {kind: sum(found[kind] for found in counts.values()) for kind in ("shape", "texture", "other")}
    return {
        "value": _bias(total),
        **total,
        "by_category": {name: {"shape_bias": _bias(found), **found} for name, found in counts.items()},
    }


class ShapeBias:
    """Decisions among the 16 categories, and their bias: a `Score`."""

    criteria: tuple[str, ...] = ("category",)
    metric = "shape bias: decisions for the shape, of those for shape or texture"

    def __init__(self, cues: list[Cues], columns: np.ndarray) -> None:
        """columns: of logits, in order of ImageNet's classes: int64 [1000]."""
        self._cues = cues
        self._columns = torch.from_numpy(columns)
        self._means = torch.zeros(len(columns), len(NAMES), dtype=torch.double)
        for number, classes in enumerate(CATEGORIES.values()):
            self._means[classes, number] = 1 / len(classes)

    def judge(
        self, network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """The number, in NAMES, of the category decided for: see `Score.judge`."""
        self._columns, self._means = self._columns.to(images.device), self._means.to(images.device)
        # The other classes take their part of the probability: it is of all 1000.
        probabilities = network(images)[:, self._columns].double().softmax(dim=1)
        return (probabilities @ self._means).argmax(dim=1, keepdim=True)

    def summarise(self, outcomes: np.ndarray) -> dict[str, Any]:
        """See `shape_bias`."""
        read = np.flatnonzero(outcomes[:, 0] != UNREAD)
        decisions = [NAMES[outcomes[photo, 0]] for photo in read]
        found = shape_bias([self._cues[photo] for photo in read], decisions)
        return {"value": found.pop("value"), "metric": self.metric, "photos": len(read), **found}


def open_cue_conflict(source: Source) -> list[Found]:
    """The stimuli whose cues are in conflict, 1200 of 1280."""
    columns = imagenet_columns(source.network, source.name)
    tree = list_photos(source)
    cues = {key: read_cues(key.rsplit("/", 1)[-1]) for key in tree.keys}
    if strange := [key for key, found in cues.items() if found is None]:
        if len(strange) == len(cues):
            raise source.misfit(EXPECTED, tree)
        raise source.fault(
            f"{len(strange)} of its {len(cues)} photos are not named like {EXPECTED}: {some(strange, 3)}; "
            "take these away"
        )
    known = {key: found for key, found in cues.items() if found is not None}
    for key, found in known.items():
        above = key.split("/")[-2] if "/" in key else ""
        if above in NAMES and above != found.shape:
            raise source.fault(f"{key}: its folder says {above}, its name {found.shape}; move it")
    counts = {"photos": len(known), "classes": len({found.shape for found in known.values()})}
    record = set_counts(source, tree, counts, {"photos": PHOTOS, "classes": len(NAMES)})
    conflicts = {key: found for key, found in known.items() if found.shape != found.texture}
    record["without_conflict"] = len(known) - len(conflicts)
    return [Found([*conflicts], ShapeBias([*conflicts.values()], columns), record, source.folder)]


def _bias(counts: dict[str, int]) -> float | None:
    return share(counts["shape"], counts["shape"] + counts["texture"])
