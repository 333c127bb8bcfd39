"""The interface of a detector: photos in, saliency maps out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from dali_bgaug.config import Options


class Photo(NamedTuple):
    """A decoded photo."""

    key: str
    """Path relative to the photo folder."""
    path: Path
    image: np.ndarray
    """uint8 [H, W, 3], RGB, upright (EXIF orientation applied)."""
    bytes: int = 0
    """Of the file."""
    orientation: int = 1
    """By which it was turned upright, as EXIF numbers them."""


class Detector:
    """A batch of photos -> a saliency map of each. One that takes them one by one has only `saliency`.

    Each worker process builds its own, which computes in one thread on the CPU: photos are many, so the
    processes are the parallelism, and a map does not depend on their number.
    """

    batch = 8
    """Photos it likes to get at a time."""

    def __call__(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Saliency in 0..255 of every photo, uint8 [H, W] at the photo's own size; all 0: no foreground.

        Raises:
            UserError: a photo it can make no map of.
        """
        return [to_saliency(self.saliency(photo.image), photo.image.shape[1::-1]) for photo in photos]

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """A photo, uint8 [H, W, 3] -> its map at any size, float [h, w] in [0, 1]."""
        raise NotImplementedError


class DetectorOptions(Options):
    """A detector's options; `name` says which detector."""

    THRESHOLD: ClassVar[float] = 0.9
    """Foreground is saliency >= this, unless the user says otherwise."""

    WEIGHTS: ClassVar[str] = ""
    """The file `weights` that it needs, for messages; empty: none."""

    crf: bool = False
    """Refine every map by a dense conditional random field (`crf`), before the threshold."""

    @property
    def on_gpu(self) -> bool:
        """True if it computes on a GPU, of which a process needs much memory."""
        return False

    def sources(self, key: str) -> tuple[Path, ...]:
        """Files beside the photo that its map is made from: a map is stale once one of them changes."""
        return ()

    def weights_time(self) -> int:
        """When the file `weights`, if the detector has any, was changed, in ns; 0 without."""
        weights = getattr(self, "weights", None)
        return weights.stat().st_mtime_ns if weights and weights.is_file() else 0

    def record(self) -> dict[str, Any]:
        """Options as the store keeps them: no paths, but the hash of what they point to.

        `crf` only where it is set: stores of before there was one stay good.
        """
        left_out = {"name", "weights"} | (set() if self.crf else {"crf"})
        return self.model_dump(mode="json", exclude=left_out)

    def build(self) -> Detector:
        """The detector; what it needs to import is imported here.

        Raises:
            UserError: weights that are none, a folder that is not there, a missing library.
        """
        detector = self._build()
        if not self.crf:
            return detector
        from tools.offline.detectors.crf import Refined

        return Refined(detector)

    def _build(self) -> Detector:
        """The detector whose maps are not refined yet."""
        raise NotImplementedError


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """Uint8 [H, W, 3] -> the photo with its longest side at most `side` pixels, uint8 [h, w, 3]."""
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(small)


def to_saliency(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float [h, w] in [0, 1] -> uint8 [H, W] of (width, height) pixels, bilinear."""
    scaled = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return (np.asarray(scaled) * 255).round().clip(0, 255).astype(np.uint8)


def stretch(values: np.ndarray) -> np.ndarray:
    """Min-max to [0, 1]; a constant map has no foreground: zeros."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def scale(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a map, uint8 [H, W], to (width, height); a two-valued mask stays so, its edge where it was."""
    pixels = Image.fromarray(saliency)
    scaled = np.asarray(pixels.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    levels = np.flatnonzero(pixels.histogram())
    if len(levels) == 2:
        # Averaging would make the edge grey, and a threshold of .9 would then eat into the object.
        low, high = levels
        scaled = np.where(scaled >= (low + high + 1) // 2, np.uint8(high), np.uint8(low))
    return scaled
