"""Masks made elsewhere: a folder tree of mask images parallel to the photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dali_bgaug.errors import UserError
from tools.detectors.base import Detector, DetectorOptions, Photo, scale
from tools.photos import quarter_turn, read_grey

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".JPEG", ".PNG", ".JPG")
ASPECT_TOLERANCE = 1.0
"""Pixels of the smaller image by which the two shapes may differ: halving 375 rows gives 187 or 188."""


class ImportOptions(DetectorOptions):
    """Options of the import."""

    THRESHOLD: ClassVar[float] = 0.9

    name: Literal["import"] = "import"
    folder: Path
    """For the photo cat/1.jpg it holds cat/1.png (or another image), any grey level as saliency."""

    def sources(self, key: str) -> tuple[Path, ...]:
        """The mask image."""
        return (self.find(key),)

    def record(self) -> dict[str, Any]:
        """Nothing: the masks are what they are."""
        return {}

    def find(self, key: str) -> Path:
        """The mask of a photo, or a UserError naming what is missing."""
        path = self.folder / key
        for suffix in SUFFIXES:
            if (mask := path.with_suffix(suffix)).is_file():
                return mask
        raise UserError(
            f"{path.with_suffix('.png')}: missing; --masks={self.folder} must hold a PNG (or another image) "
            "of the "
            f"same relative path and stem for every photo ({key} has none)"
        )

    def build(self) -> "Import":
        """The detector."""
        return Import(self)


class Import(Detector):
    """See the module."""

    def __init__(self, options: ImportOptions) -> None:
        if not options.folder.is_dir():
            raise UserError(
                f"--masks={options.folder}: not a folder; give the folder tree of masks beside the photos"
            )
        self.options = options

    def __call__(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """The masks as saliency maps, uint8 [H, W]."""
        return [open_saliency(self.options.find(photo.key), photo) for photo in photos]


def open_saliency(path: Path, photo: Photo) -> np.ndarray:
    """The mask image of a photo as a saliency map: uint8 [H, W], 0..255.

    Colour and 16-bit images become grey. A smaller or larger mask of the photo's shape is scaled. Many tools
    ignore EXIF orientation: a mask that has the shape of the photo as stored, but not as upright, is turned
    as the photo is.
    """
    mask = read_grey(path)
    width, height = size = photo.image.shape[1::-1]
    turn = quarter_turn(photo.path)
    if turn is not None and mask.size != size:
        stored = (height, width)
        if mask.size == stored or (same_shape(mask.size, stored) and not same_shape(mask.size, size)):
            mask = mask.transpose(turn)
    if not same_shape(mask.size, size):
        raise UserError(
            f"{path}: {mask.width}x{mask.height} pixels, but {photo.path} is {width}x{height}; "
            "write the mask at the photo's own size"
        )
    return np.asarray(mask) if mask.size == size else scale(np.asarray(mask), size)


def same_shape(one: tuple[int, int], other: tuple[int, int], share: float = 0.0) -> bool:
    """Whether two sizes are one shape at two scales, up to rounding, or to a share of a side."""
    (small, large) = sorted((one, other))
    scale = max(large) / max(small)
    return all(
        abs(small[axis] - large[axis] / scale) < max(ASPECT_TOLERANCE, share * small[axis]) for axis in (0, 1)
    )
