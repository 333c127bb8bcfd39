"""The whole set in order, each photo exactly once: short side to `resize`, central crop, no chance."""

from functools import partial

import numpy as np
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
    """image: normalised [size, size, 3]; torchvision's Resize and CenterCrop to the pixel."""
    side = config.views["image"].crop.size
    shape = fn.peek_image_shape(source.sample["jpg"])
    size, start = source.context.of_batch(partial(_central, config.resize, side), shape, outputs=2)
    photo = fn.resize(
        decode(source.context, source.sample["jpg"]),
        size=size,
        antialias=True,
        interp_type=types.INTERP_LINEAR,
    )
    image = fn.slice(photo, start=start, shape=[side, side], axes=[0, 1])
    return {"image": normalise(image, config.normalise, config.half)}


def _central(resize: int, side: int, _: int, shapes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the resized photos, float32 [N, 2], and where the crops start, int32 [N, 2]."""
    shape = np.stack(shapes)[:, :2]
    size = resize * shape // shape.min(axis=1, keepdims=True)
    return size.astype(np.float32), np.rint((size - side) / 2).astype(np.int32)
