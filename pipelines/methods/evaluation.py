"""The whole set in order, each photo exactly once: short side to `resize`, central crop, no chance."""

from functools import partial

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph import inspect
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
    if config.views["image"].crop.fg_min > 0:
        raise ValueError("views.image.crop.fg_min: evaluation takes the central crop; leave it out")
    if config.views["image"].crop.size > config.resize:
        raise ValueError(
            f"views.image.crop.size={config.views['image'].crop.size}: larger than resize={config.resize}"
        )


def graph(source: Source, config: LoaderConfig) -> dict[str, DataNode]:
    """image: normalised [size, size, 3]; torchvision's Resize and CenterCrop to the pixel."""
    side = config.views["image"].crop.size
    decide = partial(_central, config.resize, side)
    size, start, window = source.context.of_batch(decide, source.sample["shape"], outputs=3)
    photo = decode(source.context, source.sample["jpg"])
    resized = fn.resize(photo, size=size, antialias=True, interp_type=types.INTERP_LINEAR)
    image = fn.slice(resized, start=start, shape=[side, side], axes=[0, 1])
    outputs = {"image": normalise(image, config.normalise, config.half)}
    if source.with_sources:
        outputs |= inspect.sources(source, photo) | {"window": window}
    return outputs


def _central(resize: int, side: int, _: int, shapes: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Sizes of the resized photos, float32 [N, 2], where the crops start, int32 [N, 2], and the windows these
    are of the photos, float32 [N, 1, 4]."""
    shape = np.stack(shapes)[:, :2]
    size = resize * shape // shape.min(axis=1, keepdims=True)
    start = np.rint((size - side) / 2)
    window = np.concatenate([start / size, (start + side) / size], axis=1)
    return size.astype(np.float32), start.astype(np.int32), window[:, None].astype(np.float32)
