"""What becomes of a photo when it is packed: as it is, re-encoded, or left out."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dali_bgaug.decoding import Decoder
from tools import photos
from tools.photos import BadPhoto, check_size

QUALITY = 95  # of photos that are encoded anew


@dataclass(frozen=True, kw_only=True)
class PhotoOptions:
    """How photos are packed."""

    reencode: bool = False
    """What is no plain JPEG, or refused by the training decoder, becomes one; else it is left out."""
    max_side: int | None = None
    """Photos with a longer side are made this long, in pixels."""


class Packed(NamedTuple):
    """A photo's bytes in the shard."""

    data: bytes
    before: int
    """Bytes of its file."""
    reencoded: bool = False
    shrunk: bool = False


def pack_photo(path: Path, expected: tuple[int, int], decoder: Decoder, options: PhotoOptions) -> Packed:
    """Read a photo, check it, and return what to pack of it.

    expected: width and height that its mask was made for. What is packed was decoded by `decoder`, upright
    and at this size (or at `max_side`).

    Raises:
        BadPhoto: leave it out.
        UserError: it cannot be read, or changed since its mask was made.
    """
    data = photos.read_photo(path)
    complaint = _complaint(path, data, decoder.size(data), expected)
    if complaint is None and options.reencode and _is_cmyk(data):
        complaint = BadPhoto(path, "CMYK")
    large = options.max_side is not None and max(expected) > options.max_side
    if complaint is None and not large:
        return Packed(data, len(data))
    if complaint is not None and not options.reencode:
        raise complaint
    picture = photos.decode_photo(data, path)
    check_size(path, picture.size, expected)
    if large:
        picture.thumbnail((options.max_side, options.max_side), Image.Resampling.LANCZOS)
    picture.save(buffer := io.BytesIO(), "JPEG", quality=QUALITY)
    if decoder.size(buffer.getvalue()) != picture.size:
        raise BadPhoto(path, "refused by the training decoder", "also when encoded anew")
    return Packed(buffer.getvalue(), len(data), reencoded=complaint is not None, shrunk=large)


def _complaint(
    path: Path, data: bytes, size: tuple[int, int] | None, expected: tuple[int, int]
) -> BadPhoto | None:
    """Why a photo cannot be packed as it is."""
    if not data.startswith(b"\xff\xd8"):
        kind = _format(data)
        return BadPhoto(path, "not a JPEG", f"it is a {kind}" if kind else "")
    if size is None:
        photos.decode_photo(data, path)  # truncated and damaged files raise here, which says more
        return BadPhoto(path, "refused by the training decoder")
    if size != expected:
        # The mask was made by another decoder. Unless the photo changed, they disagree how it is to be
        # turned.
        check_size(path, photos.decode_photo(data, path).size, expected)
        return BadPhoto(path, "turned differently by the training decoder", "its EXIF orientation is odd")
    return None


def _format(data: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format
    except Exception:  # PIL raises nearly anything on a damaged file
        return None


def _is_cmyk(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return image.mode == "CMYK"
