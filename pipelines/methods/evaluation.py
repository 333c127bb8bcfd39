"""The whole set in order, each photo exactly once: short side to `resize`, central crop, no chance.

torchvision's Resize and CenterCrop to the pixel.
"""

from pipelines.config import LoaderConfig

DEFAULTS = {
    "crop": {"kind": "central", "size": 224, "flip_p": 0.0},
    "photometric": {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0},
    "views": {"image": {}},
    "background": {"kind": "none"},
}
"""image: normalised [N, 3, size, size]."""
COMPLETE = True
"""No photo is left out or comes twice; the last batch is padded and `valid` says which rows count."""


def check(config: LoaderConfig) -> None:
    """Refuse what cannot be done."""
    if config.background.kind != "none":
        raise ValueError(f"background.kind={config.background.kind}: evaluation shows photos as they are")
    crop = config.views["image"].crop
    if crop.fg_min > 0 or crop.kind != "central":
        raise ValueError("views.image.crop: evaluation takes the central crop; leave out kind and fg_min")
