"""Masks made elsewhere: a folder tree of mask images parallel to the photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import field_validator

from dali_bgaug.errors import UserError
from dali_bgaug.orientation import read_orientation, tiff_orientation, upright
from tools.offline.detectors.base import Detector, DetectorOptions, Photo, scale
from tools.offline.mask_images import Channel, Scale, find_image, read_grey

ASPECT_TOLERANCE = 1.0
"""Pixels of the smaller image by which the two shapes may differ: halving 375 rows gives 187 or 188."""


class ImportOptions(DetectorOptions):
    """Options of the import."""

    name: Literal["import"] = "import"
    folder: Path
    """For the photo cat/1.jpg it holds cat/1.png (or another image), any grey level as saliency."""
    scale: Scale = "auto"
    """What white is in all masks; auto: 255 of 8 bits, 65535 of 16; floats do not say, and are refused."""
    channel: Channel = "auto"
    """What of an image is the mask; auto: its transparency where there is some, else its grey."""
    drawn_on: Literal["auto", "upright", "stored"] = "auto"
    """Which photo they were drawn on, where EXIF turns it: the one that is seen, or its pixels as they lie in
    the file; auto: what the mask's own EXIF or its shape says, and where neither does, it is refused."""

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: Scale) -> Scale:
        if scale != "auto" and scale <= 0:
            raise ValueError("must be auto, or what white is: 1, 255 or 65535")
        return scale

    def sources(self, key: str) -> tuple[Path, ...]:
        """The mask image."""
        return (self.find(key),)

    def record(self) -> dict[str, Any]:
        """Options of reading, where they were given: stores of before there were options stay good."""
        return self.model_dump(mode="json", exclude={"name", "folder"}, exclude_defaults=True)

    def find(self, key: str) -> Path:
        """The mask of a photo, or a UserError naming what is missing."""
        path = self.folder / key
        if mask := find_image(path.with_suffix("")):
            return mask
        raise UserError(
            f"{path.with_suffix('.png')}: missing; --masks={self.folder} must hold a PNG (or another image) "
            f"of the same relative path and stem for every photo ({key} has none)"
        )

    def _build(self) -> "Import":
        return Import(self)


class Import(Detector):
    """The import of mask images."""

    def __init__(self, options: ImportOptions) -> None:
        if not options.folder.is_dir():
            raise UserError(
                f"--masks={options.folder}: not a folder; give the folder tree of masks beside the photos"
            )
        self.options = options

    def __call__(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """The masks as saliency maps, uint8 [H, W]."""
        return [open_saliency(self.options.find(photo.key), photo, self.options) for photo in photos]


def open_saliency(path: Path, photo: Photo, options: ImportOptions) -> np.ndarray:
    """The mask image of a photo as a saliency map: uint8 [H, W], 0..255, upright.

    A smaller or larger mask of the photo's shape is scaled.
    """
    if path.stat().st_size == photo.bytes and path.read_bytes() == photo.path.read_bytes():
        raise UserError(f"{path}: is the photo itself, not its mask; give the folder tree of masks")
    mask = read_grey(path, options.scale, options.channel)
    size = photo.image.shape[1::-1]
    data, turned = path.read_bytes(), upright(mask, photo.orientation)
    own = max(read_orientation(data), tiff_orientation(data))  # one of them is 1
    if options.drawn_on != "auto":
        found = [turned if options.drawn_on == "stored" else mask]
    elif own != 1:
        found = [upright(mask, own)]
    else:
        found = [mask] if photo.orientation == 1 else [mask, turned]
    fitting = [each for each in found if same_shape(each.size, size)]
    if len({each.size for each in fitting}) > 1:  # of nearly square photos
        fitting = [each for each in fitting if each.size == size] or fitting
    if not fitting:
        raise UserError(_misfit(path, photo, mask, options))
    maps = [np.asarray(each) if each.size == size else scale(np.asarray(each), size) for each in fitting]
    if len(maps) > 1 and not np.array_equal(*maps):
        raise UserError(
            f"{path}: was it drawn on {photo.path} as it is seen, or as it lies in the file, which EXIF "
            f"turns (orientation {photo.orientation})? Its shape does not tell: give drawn_on=upright or "
            "drawn_on=stored, and another --out if this one has files already"
        )
    return maps[0]


def _misfit(path: Path, photo: Photo, mask: Image.Image, options: ImportOptions) -> str:
    height, width = photo.image.shape[:2]
    message = f"{path}: {mask.width}x{mask.height} pixels, but {photo.path} is {width}x{height}"
    if any(same_shape(each, (width, height)) for each in (mask.size, mask.size[::-1])):
        said = "its own EXIF orientation" if options.drawn_on == "auto" else f"drawn_on={options.drawn_on}"
        message = f"{message} (upright), and {said} does not make it so"
        return f"{message}; give drawn_on=upright or drawn_on=stored"
    return f"{message}; write the mask at the photo's own size"


def same_shape(one: tuple[int, int], other: tuple[int, int], share: float = 0.0) -> bool:
    """True if two sizes are one shape at two scales, up to rounding, or to a share of a side."""
    (small, large) = sorted((one, other))
    scale = max(large) / max(small)
    return all(
        abs(small[axis] - large[axis] / scale) < max(ASPECT_TOLERANCE, share * small[axis]) for axis in (0, 1)
    )
