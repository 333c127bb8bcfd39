"""Photos in a folder tree: listing, opening, checking. Used by every offline tool."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dali_bgaug.errors import UserError
from dali_bgaug.files import require_folder
from dali_bgaug.shards import member_key

SUFFIXES = (".jpg", ".jpeg")

_ORIENTATION = 0x0112  # the EXIF tag
_QUARTER_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def list_photos(folder: Path, option: str = "--photos") -> list[str]:
    """Relative paths of all JPEGs below `folder`, sorted, `/` between folders."""
    require_folder(folder, option)
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(parent).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found:
        raise UserError(
            f"{option}={folder}: no photos (*.jpg, *.jpeg) in it or below it; give a folder of JPEGs"
        )
    return sorted(found)


def reject_equal_names(keys: list[str]) -> None:
    """Two photos that would have one name inside the shards are a UserError."""
    seen: dict[str, str] = {}
    for key in keys:
        name = member_key(key)
        if name in seen:
            raise UserError(f"{key} and {seen[name]} would both be packed as '{name}'; rename one of them")
        seen[name] = key


def open_photo(path: Path) -> Image.Image:
    """Decode a JPEG to RGB, upright (EXIF orientation applied).

    Raises:
        UserError: empty, truncated, damaged or not a JPEG: such a file would end a training run.
    """
    try:
        with Image.open(path) as image:
            if image.format not in ("JPEG", "MPO"):
                raise UserError(
                    f"{path}: is a {image.format}, not a JPEG; convert it or take it out of the folder"
                )
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such photo; it was there when the masks were made") from error
    except UserError:
        raise
    except Exception as error:  # PIL raises nearly anything on a damaged file
        what = "is empty" if path.stat().st_size == 0 else f"cannot be decoded ({error})"
        raise UserError(f"{path}: {what}; mend it or take it out of the folder") from error


def open_saliency(path: Path, photo: Path, size: tuple[int, int]) -> np.ndarray:
    """The mask image of a photo of upright (width, height) as a saliency map: uint8 [H, W], 0..255.

    Colour and 16-bit images become grey. Many tools ignore EXIF orientation: a mask that has the size of the
    photo as stored, but not as upright, is turned as the photo is.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            mask = image.convert("L")
    except Exception as error:
        raise UserError(f"{path}: not a readable mask image ({error}); write it again as PNG") from error
    if mask.size != size and mask.size == size[::-1]:
        with Image.open(photo) as image:
            turn = _QUARTER_TURNS.get(image.getexif().get(_ORIENTATION))
        if turn is not None:
            mask = mask.transpose(turn)
    if mask.size != size:
        raise UserError(
            f"{path}: {mask.width}x{mask.height} pixels, but {photo} is {size[0]}x{size[1]}; "
            "write the mask at the photo's own size"
        )
    return np.asarray(mask)


def find_mask(folder: Path, photo: str) -> Path:
    """The PNG of the photo's name in the parallel folder tree, or a UserError naming what is missing."""
    path = (folder / photo).with_suffix(".png")
    if not path.is_file():
        raise UserError(
            f"{path}: missing; --masks={folder} must hold a PNG of the same relative path and stem "
            f"for every photo ({photo} has none)"
        )
    return path
