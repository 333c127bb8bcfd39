"""Windows, a window of a photo -> a view, a finished view -> the network's input."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert
from pydantic import Field, model_validator

from dali_bgaug.config import Options
from dali_bgaug.graph.context import Context
from dali_bgaug.windows import UNIFORMS, CropOptions, choose_windows, coverage, has_foreground


class NormaliseOptions(Options):
    """Per-channel statistics, of pixels in [0, 1]."""

    mean: Annotated[tuple[float, float, float], Field(strict=False)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[float, float, float], Field(strict=False)] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _check(self) -> "NormaliseOptions":
        if min(self.std) <= 0:
            raise ValueError(f"std={list(self.std)} must be positive numbers")
        return self


def decode(context: Context, encoded: DataNode, hw_decoder_load: float = 0.65) -> DataNode:
    """JPEG bytes -> uint8 [H, W, 3], EXIF orientation applied."""
    image = fn.decoders.image(
        encoded, device=context.decoder, output_type=types.RGB, hw_decoder_load=hw_decoder_load
    )
    # In an `if` branch that no photo takes, the decoder's empty batch has no dimensions; what follows needs
    # them.
    return fn.reshape(image, layout="HWC")


class Window(NamedTuple):
    """A window as fractions of the image: two nodes, float32 [2] on the CPU, (y, x). start x > end x
    mirrors."""

    start: DataNode
    end: DataNode


def split_windows(node: DataNode, views: int) -> list[Window]:
    """float32 [views, 4] -> a window per view."""
    return [Window(node[view, 0:2], node[view, 2:4]) for view in range(views)]


@do_not_convert
def windows(
    context: Context,
    shape: DataNode,
    crops: Sequence[CropOptions],
    packed: DataNode | None = None,
    mask_size: int = 0,
) -> tuple[DataNode, DataNode]:
    """Choose one window per view (see `dali_bgaug.windows`).

    Args:
        context: backend and seeds.
        shape: the photo's height and width, int64 [2 or 3] on the CPU.
        crops: one per view.
        packed: the photo's bit-packed mask on the CPU; None where no view has an fg_min.
        mask_size: its side in pixels.

    Returns:
        Windows, float32 [views, 4], and whether any foreground is in each, bool [views] (without a mask:
        false); both on the CPU.
    """

    def choose(
        rng: np.random.Generator, _: int, shapes: list[np.ndarray], *masks: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        height, width = np.stack(shapes)[:, :2].T
        uniforms = rng.random((len(shapes), len(crops), UNIFORMS), np.float32)
        if not masks:
            chosen = choose_windows(uniforms, height, width, crops)
            return chosen, np.zeros(chosen.shape[:2], bool)
        cells = coverage(np.stack(masks[0]), mask_size)
        chosen = choose_windows(uniforms, height, width, crops, cells)
        return chosen, has_foreground(chosen, cells)

    inputs = [shape] if packed is None else [shape, packed]
    return context.of_batch("windows", choose, *inputs, outputs=2)


def crop(image: DataNode, window: Window, size: int) -> DataNode:
    """Cut `window` out of uint8 [H, W, C] and resize it to [size, size, C]: antialiased, bilinear.

    One window serves a photo and its square mask. Pixels outside the window do not enter, as when cropping
    first.
    """
    return fn.resize(
        image,
        size=[size, size],
        roi_start=window.start,
        roi_end=window.end,
        roi_relative=True,
        antialias=True,
        interp_type=types.INTERP_LINEAR,
    )


def normalise(view: DataNode, options: NormaliseOptions, half: bool) -> DataNode:
    """uint8 [H, W, 3] -> (x / 255 - mean) / std, float32 or float16 [H, W, 3].

    Channels stay last: torch sees the batch as NCHW in channels_last memory format without a copy.
    """
    return fn.crop_mirror_normalize(
        view,
        dtype=types.FLOAT16 if half else types.FLOAT,
        output_layout="HWC",
        mean=[255 * value for value in options.mean],
        std=[255 * value for value in options.std],
    )
