"""Images of masks, read as saliency.

What a file means is told by its kind and by what the user says, never by its highest value: of a photo
without foreground that is noise. Where its kind does not say it, the file is refused.
"""

import glob
import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from dali_bgaug.decoding import MAX_PIXELS
from dali_bgaug.errors import UserError
from dali_bgaug.orientation import stored, tiff_orientation
from tools.offline.photos import BadPhoto, check_pixels, white_level

Scale = Literal["auto"] | float
"""What white is; auto: 255 of 8 bits, 65535 of 16."""
Channel = Literal["auto", "grey", "alpha"]
"""What of an image is the mask; auto: its transparency where there is some, else its grey."""

COLOURED = 32
"""Levels by which a pixel's channels differ if it is in colour: JPEG and WebP tint greys a little."""
COLOURED_SHARE = 0.001
"""Of the pixels of an image in colour; less could be no foreground either."""
BEYOND = 0.1
"""Share of white by which floats may lie outside of black and white: networks and resizing overshoot."""


ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Of mask images, in lower case; of names in any case."""


def find_image(stem: Path) -> Path | None:
    """The image of this path without its ending, if there is one."""
    for ending in ENDINGS:
        if (image := stem.with_name(stem.name + ending)).is_file():
            return image
    if not stem.parent.is_dir():
        return None
    found = (
        path for path in sorted(stem.parent.glob(f"{glob.escape(stem.name)}.*")) if path.stem == stem.name
    )
    return next((path for path in found if path.suffix.lower() in ENDINGS), None)


def read_grey(path: Path, scale: Scale = "auto", channel: Channel = "auto") -> Image.Image:
    """A mask image as saliency, mode L, as it lies (the EXIF orientation is not applied).

    Raises:
        UserError: not a readable image, or a PNG with a wrong checksum, which loading does not look at; one
            of which it is not certain what it means.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(path, image.size, MAX_PIXELS)
            image.verify()
        with Image.open(io.BytesIO(data)) as image:  # which `verify` has used up
            frames = getattr(image, "n_frames", 1)
            image.load()
            values, alpha = _layers(image)
        turned = tiff_orientation(data)  # as PIL has done
    except MemoryError:
        raise
    except BadPhoto as error:
        raise UserError(str(error)) from None
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise UserError(f"{path}: not a readable mask image ({error}); write it again as PNG") from error
    if frames > 1:
        raise UserError(f"{path}: holds {frames} frames; write the mask as an image of one")
    if channel == "alpha" and alpha is None:
        raise UserError(f"{path}: has no transparency; leave channel=alpha away, or write it with some")
    if channel == "alpha" or (channel == "auto" and _is_alpha_the_mask(path, values, alpha)):
        return stored(Image.fromarray(alpha), turned)
    if values.ndim == 3:
        if channel == "auto" and _is_coloured(values):
            raise UserError(
                f"{path}: an image in colour, no mask; is it a photo, or a map of classes? If its grey "
                "is the mask give channel=grey, if it is a cut-out of which nothing was cut channel=alpha"
            )
        values = np.asarray(Image.fromarray(values).convert("L"))
    white = white_level(image)
    if image.mode == "1" or (white == 255 and scale in ("auto", 255)):
        return stored(Image.fromarray(values), turned)
    return stored(Image.fromarray(_scaled(path, values, white, scale)), turned)


def _layers(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Values, [H, W] or uint8 [H, W, 3], and alpha, uint8 [H, W], of an image in any mode."""
    if white_level(image) != 255:
        if "transparency" in image.info:
            raise ValueError("16 bits with a transparent level")
        return np.asarray(image), None
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        return pixels[..., :3], pixels[..., 3]
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")), None


def _is_alpha_the_mask(path: Path, colours: np.ndarray, alpha: np.ndarray | None) -> bool:
    """True if an image's alpha is the mask: where it varies, or where nothing is to be seen."""
    if alpha is None:
        return False
    low, high = int(alpha.min()), int(alpha.max())
    if low < high:
        return True
    if high == 255:
        return False
    if high == 0 and (_is_coloured(colours) or np.ptp(colours) == 0):
        return True
    raise UserError(
        f"{path}: grey levels, all of one transparency ({high} of 255); if the grey is the mask give "
        "channel=grey, if the transparency is channel=alpha"
    )


def _is_coloured(pixels: np.ndarray) -> bool:
    """uint8 [H, W, 3]."""
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return bool((spread > COLOURED).mean() >= COLOURED_SHARE)


def _scaled(path: Path, values: np.ndarray, white: int | None, scale: Scale) -> np.ndarray:
    """Values of any type, [H, W], as uint8 0..255. white: the highest that their type has, if that is known.

    Raises:
        UserError: it is not known what white is, or it is not what `scale` says.
    """
    if scale == "auto" and white is None:
        kind = "floats" if values.dtype.kind == "f" else "32-bit numbers"
        raise UserError(
            f"{path}: {kind} do not say what white is; give scale=1, scale=255 or scale=65535 "
            "(tools.saliency_eval: --scale=1), or write all masks of the folder in 8 bits"
        )
    if scale == "auto":
        scale = white
    if white is not None and scale > white:
        raise UserError(f"{path}: has no levels above {white}, but scale={scale:g} says what white is")
    low, high = float(values.min()), float(values.max())
    slack = BEYOND * scale if values.dtype.kind == "f" else 0
    if not (low >= -slack and high <= scale + slack):  # also of values that are no numbers
        raise UserError(
            f"{path}: holds {low:g} to {high:g}, but white is {scale:g}; give scale= what white is in all "
            "masks of the folder"
        )
    return (values * (255 / scale)).round().clip(0, 255).astype(np.uint8)
