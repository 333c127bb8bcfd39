"""The paper's figures for networks like those of a report, each with its table.

Ryali, Schwab and Morcos 2021. Only what was read there is here; what a column has no figure of is a dash.
"""

from functools import cache
from typing import NamedTuple

from dali_bgaug.config import read_yaml
from train.evaluate.report.recipes import CONFIGS, Traits, essence, recipe_traits
from train.evaluate.report.runs import IMPORTED, RETRAINED, Network

IMAGENET_CLASSES = 1000


class Figure(NamedTuple):
    """A figure of the paper."""

    value: float
    """A share."""
    source: str
    """A footnote: its table."""


class PaperRow(NamedTuple):
    """A network of the paper."""

    recipe: str
    """Of `configs/`, which says method, setting and backgrounds."""
    figures: dict[str, tuple[float, str]]
    """Percent and source, by column."""
    words: tuple[str, ...] = ()
    """What it has otherwise than the recipe, as `key=value`."""
    variant: str | None = None
    """Of the classifier."""


_TOP1 = "the paper, linear top-1 on ImageNet"
_BOTH = "the paper's Tables 2 and A12"
_A12 = "the paper's Table A12"
_SWEEP = f"{_TOP1}; the best of a sweep over p_pos or one of it, we do not know which"
_TABLE_7 = "the paper's Table 7"
_CITED = "the paper's SwAV of 800 epochs, table not known"

PAPER = (
    PaperRow("moco_v2_medium_none", {"linear": (67.7, _TOP1)}),
    PaperRow("moco_v2_medium_rm", {"linear": (69.1, _TOP1)}),
    PaperRow("moco_v2_medium_swaps", {"linear": (69.5, _TOP1)}),
    PaperRow(
        "moco_v2_full_none",
        {"linear": (71.0, _BOTH), "linear-bn-eval": (71.0, _A12)},
    ),
    PaperRow("moco_v2_full_rm", {"linear": (71.9, _TOP1)}),
    PaperRow("moco_v2_full_swaps", {"linear": (72.2, _TOP1)}),
    PaperRow("byol_medium_none", {"linear": (72.7, _TOP1)}),
    PaperRow("byol_medium_rm", {"linear": (73.3, _TOP1)}),
    PaperRow("byol_medium_random", {"linear": (73.9, _TOP1)}),
    PaperRow(
        "byol_full_none",
        {"linear": (73.8, _BOTH), "linear-bn-eval": (74.1, _A12)},
    ),
    PaperRow("swav_medium_none", {"linear": (72.2, _TOP1)}),
    PaperRow("swav_medium_rm", {"linear": (73.6, _TOP1)}),
    PaperRow("swav_medium_random", {"linear": (73.4, _TOP1)}),
    PaperRow(
        "swav_full_none",
        {
            **{"linear": (74.9, _BOTH), "linear-bn-train": (74.7, _A12)},
            **{"objectnet": (19.3, _CITED), "imagenet-a": (5.2, _CITED), "imagenet-r": (29.4, _CITED)},
        },
    ),
    PaperRow("rotnet_none", {"linear": (36.1, _TOP1)}),
    PaperRow("rotnet_rm", {"linear": (36.0, _SWEEP)}),
    PaperRow("rotnet_random", {"linear": (36.1, _SWEEP)}),
    PaperRow("supervised_medium_none", {"real/top1": (76.4, _TABLE_7)}),
    PaperRow("supervised_medium_rm", {"linear": (75.1, _TABLE_7)}, ("data.background.p_pos=0.5",), RETRAINED),
    PaperRow(
        "supervised_medium_random", {"linear": (73.5, _TABLE_7)}, ("data.background.p_pos=0.5",), RETRAINED
    ),
)

TORCHVISION = "torchvision resnet50 IMAGENET1K_V1"
"""The network that the paper compares with, as the robustness evaluation calls it."""
_COMPARED = "the paper's ResNet-50 of torchvision, table not known"
_FOREGROUND = "the paper's section 5.4: ResNet-50 of torchvision"
TORCHVISION_FIGURES = {
    **{"real": (82.9, _COMPARED), "imagenet-v2/matched-frequency": (63.3, _COMPARED)},
    **{"objectnet": (24.7, _COMPARED), "cue-conflict": (22.1, "the paper's Table 20")},
    **{"imagenet-a": (0.0, _FOREGROUND), "only-fg-imagenet-a": (2.8, _FOREGROUND)},
}


def figures_of(network: Network) -> dict[str, Figure]:
    """The paper's figures of a network by column: of the row whose method, setting and backgrounds it has.

    None of a network whose pre-training was on another data set than one of 1000 classes, is not all, or is
    followed by another than the usual linear classifier.
    """
    if network.name == TORCHVISION and not network.traits:
        return _figures(TORCHVISION_FIGURES)
    if network.classes not in (None, IMAGENET_CLASSES) or not network.traits:
        return {}
    variants = {variant for variant in network.variants if variant != IMPORTED}
    wanted = essence(network.traits)
    for row in PAPER:
        if variants == {row.variant} - {None} and _essence_of(row.recipe, row.words) == wanted:
            return _figures(row.figures)
    return {}


def _figures(percents: dict[str, tuple[float, str]]) -> dict[str, Figure]:
    return {key: Figure(round(value / 100, 4), source) for key, (value, source) in percents.items()}


@cache
def _essence_of(recipe: str, words: tuple[str, ...]) -> Traits:
    path = CONFIGS / f"{recipe}.yaml"
    return essence(recipe_traits(read_yaml(path), str(path), *words))
