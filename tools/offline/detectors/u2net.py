"""U²-Net by ONNX Runtime: X. Qin et al., "U²-Net: Going Deeper with Nested U-Structure", 2020.

Input and output as in the authors' own test program: the photo is stretched to a square of 320 pixels,
divided by its own largest value, normalised by ImageNet's mean and standard deviation; the fused map, the
network's first output, is stretched to [0, 1] and scaled back to the photo's size.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from dali_bgaug.errors import UserError
from tools.offline.detectors.base import Detector, Photo, stretch, to_saliency
from tools.offline.detectors.onnx import OnnxOptions, open_session

SIDE = 320
FILE = "the .onnx file of u2net or u2netp"
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class U2NetOptions(OnnxOptions):
    """Options of U²-Net."""

    WEIGHTS = FILE

    name: Literal["u2net"] = "u2net"
    stretch: bool = True
    """Stretch every map to [0, 1]: each photo that is not flat then has some foreground."""

    def _build(self) -> "U2Net":
        return U2Net(self)


class U2Net(Detector):
    """U²-Net through ONNX Runtime."""

    def __init__(self, options: U2NetOptions) -> None:
        self.stretch = options.stretch
        self.session = open_session(options, FILE)
        self.input, self.output = self.session.get_inputs()[0], self.session.get_outputs()[0]
        shape = self.input.shape  # an exported batch size is either fixed or a name
        self.batch = shape[0] if isinstance(shape[0], int) else (8 if options.provider == "cuda" else 1)
        if len(shape) != 4 or shape[1] != 3 or not all(n == SIDE or isinstance(n, str) for n in shape[2:]):
            raise UserError(
                f"weights={options.weights}: its input is {shape}, U²-Net's is [1, 3, {SIDE}, {SIDE}]; "
                f"give {FILE}"
            )

    def __call__(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Saliency maps, uint8 [H, W]."""
        pixels = np.stack([prepare(photo.image) for photo in photos])
        if isinstance(self.input.shape[0], int) and len(pixels) < self.batch:
            pixels = np.concatenate([pixels, pixels[:1].repeat(self.batch - len(pixels), 0)])
        maps = self.session.run([self.output.name], {self.input.name: pixels})[0][: len(photos), 0]
        if self.stretch:
            maps = [stretch(map_) for map_ in maps]
        return [to_saliency(map_, photo.image.shape[1::-1]) for map_, photo in zip(maps, photos, strict=True)]


def prepare(image: np.ndarray) -> np.ndarray:
    """Uint8 [H, W, 3] -> the network's input, float32 [3, SIDE, SIDE]."""
    square = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    largest = square.max()
    if largest > 0:
        square = square / largest
    return ((square - MEAN) / STD).transpose(2, 0, 1)
