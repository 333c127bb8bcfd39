"""The whole set in order, each photo exactly once: short side to `resize`, central crop, no chance."""

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.crop import decode, normalise
from dali_bgaug.graph.read import Source
from pipelines.config import LoaderConfig

DEFAULTS = {
    "crop": {"size": 224, "flip_p": 0.0},
    "photometric": {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0},
    "views": {"image": {}},
    "background": {"kind": "none"},
}
COMPLETE = True
"""No photo is left out or comes twice; the last batch is padded and `valid` says which rows count."""


def check(config: LoaderConfig) -> None:
    """Refuse what cannot be done."""
    if config.background.kind != "none":
        raise ValueError(f"background.kind={config.background.kind}: evaluation shows photos as they are")
    if config.views["image"].crop.size > config.resize:
        raise ValueError(
            f"views.image.crop.size={config.views['image'].crop.size}: larger than resize={config.resize}"
        )


def graph(source: Source, config: LoaderConfig) -> dict[str, DataNode]:
    """image: normalised [size, size, 3]."""
    size = config.views["image"].crop.size
    photo = fn.resize(
        decode(source.context, source.sample["jpg"]),
        resize_shorter=config.resize,
        antialias=True,
        interp_type=types.INTERP_LINEAR,
    )
    image = fn.crop(photo, crop=[size, size])
    return {"image": normalise(image, config.normalise, config.half)}
