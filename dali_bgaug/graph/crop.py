"""Windows, a window of a photo -> a view, a finished view -> the network's input."""

from typing import Annotated, NamedTuple

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from pydantic import Field, model_validator

from dali_bgaug.config import Options
from dali_bgaug.graph.context import Context


class NormaliseOptions(Options):
    """Per-channel statistics, of pixels in [0, 1]."""

    mean: Annotated[tuple[float, float, float], Field(strict=False)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[float, float, float], Field(strict=False)] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _check(self) -> "NormaliseOptions":
        if min(self.std) <= 0:
            raise ValueError(f"std={list(self.std)} must be positive numbers")
        return self


def decode(context: Context, encoded: DataNode) -> DataNode:
    """JPEG bytes -> uint8 [H, W, 3], EXIF orientation applied."""
    width, height = context.preallocate
    image = fn.decoders.image(
        encoded,
        device="mixed" if context.device == "gpu" else "cpu",  # mixed: bytes on the CPU, pixels on the GPU
        output_type=types.RGB,
        hw_decoder_load=context.hw_decoder_load,
        preallocate_width_hint=width,
        preallocate_height_hint=height,
    )
    # In an `if` branch that no photo takes, the decoder's empty batch has no dimensions; what follows needs
    # them.
    return fn.reshape(image, layout="HWC")


class Window(NamedTuple):
    """A window as fractions of the image: two nodes, float32 [2] on the CPU, (y, x). start x > end x
    mirrors."""

    start: DataNode
    end: DataNode


def split_windows(node: DataNode, count: int) -> list[Window]:
    """float32 [count, 4] -> so many windows."""
    return [Window(node[number, 0:2], node[number, 2:4]) for number in range(count)]


def crop(image: DataNode, window: Window, size: int, dtype: types.DALIDataType = types.FLOAT) -> DataNode:
    """Cut `window` out of uint8 [H, W, C] and resize it to [size, size, C]: antialiased, bilinear.

    One window serves a photo and its square mask. Unlike after cropping first, the filter reaches beyond the
    window for the view's outermost pixels. Views are float32, 0 to 255: what follows costs less on floats
    than on bytes, whose rounding DALI does one by one on the CPU (`benchmarks/notes.md`).
    """
    return fn.resize(
        image,
        size=[size, size],
        roi_start=window.start,
        roi_end=window.end,
        roi_relative=True,
        antialias=True,
        interp_type=types.INTERP_LINEAR,
        dtype=dtype,
    )


def normalise(view: DataNode, options: NormaliseOptions, half: bool) -> DataNode:
    """[H, W, 3] of 0 to 255 -> (x / 255 - mean) / std, float32 or float16 [H, W, 3].

    Channels stay last: torch sees the batch as NCHW in channels_last memory format without a copy.
    """
    return fn.crop_mirror_normalize(
        view,
        dtype=types.FLOAT16 if half else types.FLOAT,
        output_layout="HWC",
        mean=[255 * value for value in options.mean],
        std=[255 * value for value in options.std],
    )
