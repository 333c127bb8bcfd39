"""The methods as data: which views each takes, in a recipe's own words. A new method is one entry here.

What becomes of a view is said in `dali_bgaug.views.plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.config import LoaderConfig


@dataclass(frozen=True)
class MethodViews:
    """The views of a method, and the defaults of its LoaderConfig."""

    views: dict[str, dict[str, Any]]
    """Defaults of each view (`ViewOptions`), by name. One with a `count` is a kind of which there may be any
    number, given as `name_0`, `name_1`, …; every other is one view of its own name."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Other values, as a recipe would give them."""
    complete: bool = False
    """Whether an epoch is every photo once, in order; the last batch is padded then, and `valid` says which
    rows count."""
    check: Callable[[LoaderConfig], None] = lambda config: None
    """Raises ValueError for what the method cannot do."""


def _check_evaluation(config: LoaderConfig) -> None:
    if config.background.kind != "none":
        raise ValueError(f"background.kind={config.background.kind}: evaluation shows photos as they are")
    crop = config.views["image"].crop
    if crop.fg_min > 0 or crop.kind != "central":
        raise ValueError("views.image.crop: evaluation takes the central crop; leave out kind and fg_min")


def _check_moco(config: LoaderConfig) -> None:
    if config.background.kind != "swaps":
        return
    query, key = config.views["query"], config.views["key"]
    if query.crop.size != key.crop.size:
        raise ValueError(
            f"background.kind=swaps: query ({query.crop.size} pixels) and key ({key.crop.size}) must have "
            "one size, a negative is made of both"
        )
    if config.background.coupled and not key.background:
        raise ValueError(
            "background.coupled=true: negatives follow the key's background, views.key.background is false"
        )


_NO_COLOUR = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0}

METHODS = {
    # Two views that are not alike: the first is always blurred, the second seldom, but solarized. Grill et
    # al. 2020, appendix B; with the crop scale of the background augmentation paper.
    "byol": MethodViews(
        views={
            "view_1": {"photometric": {"blur_p": 1.0}},
            "view_2": {"photometric": {"blur_p": 0.1, "solarize_p": 0.2}},
        },
        defaults={"crop": {"scale": [0.2, 1.0]}, "photometric": {"saturation": 0.2}},
    ),
    # The whole set without chance: short side to `resize`, central crop, torchvision's to the pixel.
    "evaluation": MethodViews(
        views={"image": {}},
        defaults={
            "crop": {"kind": "central", "size": 224, "flip_p": 0.0},
            "photometric": _NO_COLOUR,
            "background": {"kind": "none"},
        },
        complete=True,
        check=_check_evaluation,
    ),
    # Query and key and, with BG_Swaps, extra negatives that share the query's background: negative_0, …
    "moco_v2": MethodViews(views={"query": {}, "key": {}}, check=_check_moco),
    # The four rotations of one view, [N, 4, 3, size, size], turned counter-clockwise by 0, 90, 180 and 270
    # degrees; its background was replaced before its crop. Gidaris, Singh, Komodakis 2018.
    "rotnet": MethodViews(
        views={"image": {"turns": 4}},
        defaults={
            "crop": {"scale": [0.08, 1.0]},
            "photometric": _NO_COLOUR,
            "background": {"stage": "before", "donor": "none"},
        },
    ),
    # One cropped and flipped view with its label: supervised training, linear probes, fine-tuning.
    "supervised": MethodViews(
        views={"image": {}}, defaults={"crop": {"scale": [0.08, 1.0]}, "photometric": _NO_COLOUR}
    ),
    # Multi-crop: global views, whose backgrounds may be replaced, and smaller local ones, whose are not.
    # Caron et al. 2020; the standard deviation of red is the original code's.
    "swav": MethodViews(
        views={
            "global": {"count": 2, "crop": {"size": 224, "scale": [0.14, 1.0]}},
            "local": {"count": 6, "crop": {"size": 96, "scale": [0.05, 0.14]}, "background": False},
        },
        defaults={
            "photometric": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
            "normalise": {"std": [0.228, 0.224, 0.225]},
        },
    ),
}
"""By the name that `pipeline` gives. Views are normalised, [N, 3, size, size] where nothing else is said."""
