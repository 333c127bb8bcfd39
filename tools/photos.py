"""Photos in a folder tree: listing, opening, checking. Used by every offline tool."""

import io
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


class BadPhoto(UserError):
    """The bytes of a photo are no picture that can be used; `reason` is the kind of defect, for counting.

    A file that cannot be read at all (gone, no permission, a failing disk) is a plain UserError instead:
    that is the machine's fault, and to leave photos out because of it would lose data.
    """

    def __init__(self, path: Path, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{path}: {reason}{f' ({detail})' if detail else ''}")


def list_photos(folder: Path, option: str = "--photos") -> list[str]:
    """Relative paths of all JPEGs below `folder`, sorted, `/` between folders."""
    require_folder(folder, option)
    found = []
    start = len(os.path.join(folder, ""))
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = f"{parent[start:]}/" if len(parent) > start else ""
        found += [
            below + name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found:
        raise UserError(
            f"{option}={folder}: no photos (*.jpg, *.jpeg) in it or below it; give a folder of JPEGs"
        )
    return sorted(found)


def reject_equal_names(keys: list[str]) -> None:
    """Two photos that would have one name inside the shards are a UserError."""
    hashes = np.fromiter((hash(member_key(key)) for key in keys), np.int64, len(keys))
    order = np.argsort(hashes, kind="stable")
    for position in np.flatnonzero(np.diff(hashes[order]) == 0):  # nearly always none, so memory stays small
        one, other = keys[order[position]], keys[order[position + 1]]
        if member_key(one) == member_key(other):
            raise UserError(
                f"{other} and {one} would both be packed as '{member_key(one)}'; rename one of them"
            )


def read_photo(path: Path) -> bytes:
    """A photo's bytes.

    Raises:
        UserError: it cannot be read.
        BadPhoto: it is empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such photo; it was there when the masks were made") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend that and run again") from error
    if not data:
        raise BadPhoto(path, "empty file")
    return data


def decode_photo(data: bytes, path: Path) -> Image.Image:
    """Decode a picture to RGB, upright (EXIF orientation applied), whatever format it is in.

    Raises:
        BadPhoto: truncated, damaged or not a picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except Image.UnidentifiedImageError:
        raise BadPhoto(path, "not a picture") from None
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise BadPhoto(path, "truncated or damaged", str(error)) from error


def open_photo(path: Path) -> Image.Image:
    """Read and decode (see `read_photo` and `decode_photo`)."""
    return decode_photo(read_photo(path), path)


def check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """A photo of another size than its mask was made for is a UserError."""
    if tuple(found) != tuple(expected):
        raise UserError(
            f"{path}: {found[0]}x{found[1]} pixels, but its mask was made for {expected[0]}x{expected[1]}; "
            "the photo changed since: make the masks anew (make masks)"
        )


def quarter_turn(path: Path) -> Image.Transpose | None:
    """The turn that swaps a photo's sides to make it upright, by its EXIF orientation, or None."""
    with Image.open(path) as image:
        return _QUARTER_TURNS.get(image.getexif().get(_ORIENTATION))
