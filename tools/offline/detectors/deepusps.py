"""DeepUSPS: a network that `tools.saliency_train` has trained without labels, refined by the random field.

T. Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision", 2019. The
photo is stretched to the network's square, the probability of the object is stretched back. Foreground is
from .9 on, the paper's threshold.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from dali_bgaug.errors import UserError
from tools.offline.detectors.base import Detector, Photo, to_saliency
from tools.offline.detectors.onnx import OnnxOptions, open_session

FILE = "the saliency.onnx of a training (python -m tools.saliency_train)"


class DeepUSPSOptions(OnnxOptions):
    """Options of DeepUSPS."""

    WEIGHTS = FILE

    name: Literal["deepusps"] = "deepusps"
    crf: bool = True
    """Refine every map by the random field."""

    def _build(self) -> "DeepUSPS":
        return DeepUSPS(self)


class DeepUSPS(Detector):
    """A saliency network through ONNX Runtime."""

    def __init__(self, options: DeepUSPSOptions) -> None:
        self.session = open_session(options, FILE)
        self.batch = 8 if options.on_gpu else 1
        names = [item.name for item in (*self.session.get_inputs(), *self.session.get_outputs())]
        if names != ["photo", "saliency"]:
            raise UserError(
                f"weights={options.weights}: a network of {', '.join(names)}, not of photo, saliency; "
                f"give {FILE}"
            )
        self.side = self.session.get_inputs()[0].shape[2]

    def __call__(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Saliency maps, uint8 [H, W]."""
        size = (self.side, self.side)
        pixels = [Image.fromarray(photo.image).resize(size, Image.Resampling.BICUBIC) for photo in photos]
        batch = np.stack(pixels).astype(np.float32).transpose(0, 3, 1, 2)
        maps = self.session.run(["saliency"], {"photo": batch})[0][:, 0]
        return [to_saliency(map_, photo.image.shape[1::-1]) for map_, photo in zip(maps, photos, strict=True)]
