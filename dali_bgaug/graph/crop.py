"""Windows, a window of a photo -> a view, a finished view -> the network's input."""

from collections.abc import Sequence

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

from dali_bgaug.config import Options
from dali_bgaug.graph.context import Context, of_batch
from dali_bgaug.windows import UNIFORMS, CropOptions, choose_windows, coverage


class NormaliseOptions(Options):
    """Per-channel statistics, of pixels in [0, 1]."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@do_not_convert
def windows(
    context: Context,
    name: str,
    shape: DataNode,
    crops: Sequence[CropOptions],
    packed: DataNode | None = None,
    mask_size: int = 0,
) -> DataNode:
    """One window per view (see `dali_bgaug.windows`): float32 [views, 4] on the CPU.

    shape: the photo's height and width, int64 [2 or 3] on the CPU. packed: its bit-packed mask on the CPU; None
    where no view has an fg_min.
    """
    uniforms = context.uniform(name, 0.0, 1.0, len(crops), UNIFORMS)

    def choose(uniforms: list[np.ndarray], shapes: list[np.ndarray], *masks: list[np.ndarray]) -> np.ndarray:
        size = np.stack(shapes)
        cells = coverage(np.stack(masks[0]), mask_size) if masks else None
        return choose_windows(np.stack(uniforms), size[:, 0], size[:, 1], crops, cells)

    inputs = [uniforms, shape] if packed is None else [uniforms, shape, packed]
    return of_batch(choose, *inputs)


def crop(image: DataNode, window: DataNode, size: int) -> DataNode:
    """Cut `window` out of uint8 [H, W, C] and resize it to [size, size, C]: antialiased, bilinear.

    window: float32 [4] on the CPU: y0, x0, y1, x1 as fractions of the image, so one window serves a photo and
    its square mask. x0 > x1 mirrors. Pixels outside the window do not enter, as when cropping first.
    """
    return fn.resize(
        image,
        size=[size, size],
        roi_start=window[0:2],
        roi_end=window[2:4],
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
