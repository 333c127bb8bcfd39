"""U²-Net by ONNX Runtime: X. Qin et al., "U²-Net: Going Deeper with Nested U-Structure", 2020.

Input and output as in the authors' own test program: the photo is stretched to a square of 320 pixels,
divided by its own largest value, normalised by ImageNet's mean and standard deviation; the fused map, the
network's first output, is stretched to [0, 1] and scaled back to the photo's size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dali_bgaug.errors import UserError
from dali_bgaug.files import sha256
from tools.offline.detectors.base import Detector, DetectorOptions, Photo, stretch, to_saliency

SIDE = 320
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class U2NetOptions(DetectorOptions):
    """Options of U²-Net."""

    name: Literal["u2net"] = "u2net"
    weights: Path
    """The network as an .onnx file (u2net.onnx or u2netp.onnx)."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """Where ONNX Runtime computes; CUDA needs the package onnxruntime-gpu."""
    stretch: bool = True
    """Stretch every map to [0, 1]: each photo that is not flat then has some foreground."""

    @property
    def on_gpu(self) -> bool:
        """With CUDA."""
        return self.provider == "cuda"

    def record(self) -> dict[str, Any]:
        """The options, and the weights' hash."""
        return super().record() | {"weights_sha256": sha256(self.weights)}

    def _build(self) -> "U2Net":
        return U2Net(self)


class U2Net(Detector):
    """U²-Net through ONNX Runtime."""

    def __init__(self, options: U2NetOptions) -> None:
        self.stretch = options.stretch
        self.session = _open_session(options)
        self.input, self.output = self.session.get_inputs()[0], self.session.get_outputs()[0]
        shape = self.input.shape  # an exported batch size is either fixed or a name
        self.batch = shape[0] if isinstance(shape[0], int) else (8 if options.provider == "cuda" else 1)
        if len(shape) != 4 or shape[1] != 3 or not all(n == SIDE or isinstance(n, str) for n in shape[2:]):
            raise UserError(
                f"weights={options.weights}: its input is {shape}, U²-Net's is [1, 3, {SIDE}, {SIDE}]; "
                "give the .onnx file of u2net or u2netp"
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


def _open_session(options: U2NetOptions) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(
            "--detector u2net needs ONNX Runtime: pip install '.[saliency]' (or onnxruntime-gpu for "
            "provider=cuda)"
        ) from None
    if not options.weights.is_file():
        raise UserError(f"weights={options.weights}: no such file; give the .onnx file of u2net or u2netp")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[options.provider]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"provider={options.provider}: this ONNX Runtime has only "
            f"{', '.join(onnxruntime.get_available_providers())}; install onnxruntime-gpu, or take "
            "provider=cpu"
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1  # see Detector
    settings.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(options.weights), settings, providers=[provider])
    except Exception as error:  # ONNX Runtime has an exception of its own for every kind of bad file
        reason = str(error).splitlines()[0]
        raise UserError(
            f"weights={options.weights}: ONNX Runtime cannot load it ({reason}); "
            "give the .onnx file of u2net or u2netp, whole"
        ) from error
