"""The packing of a photo: as it is, re-encoded, or left out."""

import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dali_bgaug.decoding import Decoder
from dali_bgaug.errors import UserError
from dali_bgaug.orientation import exif_blocks, is_contradictory
from tools.offline import photos
from tools.offline.damage import find_damage
from tools.offline.photos import BadPhoto, check_size
from tools.offline.shard_plan import Row

QUALITY = 95  # of photos that are encoded anew
STEP = 4  # every so many pixels are compared
_KEEP_SIZE = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)


@dataclass(frozen=True, kw_only=True)
class PhotoOptions:
    """Options of packing photos."""

    reencode: bool = False
    """What is no plain JPEG, or refused by the training decoder, becomes one; else it is left out."""
    max_side: int | None = None
    """Photos with a longer side are made this long, in pixels."""
    strict: bool = False
    """Photos that are damaged inside, which decoders forgive, are left out."""

    def record(self) -> dict[str, Any]:
        """Options as the manifest keeps them; shards of before there was `strict` stay good."""
        values = asdict(self)
        return values if self.strict else {name: values[name] for name in values if name != "strict"}


class Packed(NamedTuple):
    """A photo's bytes in the shard."""

    data: bytes
    before: int
    """Bytes of its file."""
    size: tuple[int, int]
    """Width and height."""
    damage: str
    """Inside its file, in words; empty if none is known."""
    reencoded: bool = False
    shrunk: bool = False


def pack_photo(path: Path, row: Row, decoder: Decoder, options: PhotoOptions) -> Packed:
    """Read a photo, check it, and return what to pack of it.

    What is packed was decoded by `decoder`, upright and at the size its mask was made for (or at `max_side`).

    Raises:
        BadPhoto: leave it out.
        UserError: it cannot be read, or changed since its mask was made.
    """
    data, expected = photos.read_photo(path, row.bytes), (row.width, row.height)
    pixels = decoder.decode(data)
    damage = "" if pixels is None else find_damage(data, decoder.warning)
    if damage and options.strict:
        raise BadPhoto(path, "damaged inside", damage)
    complaint = _complaint(path, data, pixels, expected)
    if complaint is None and options.reencode and _is_cmyk(data):
        complaint = BadPhoto(path, "CMYK")
    large = options.max_side is not None and max(expected) > options.max_side
    if complaint is None and not large:
        return Packed(data, len(data), expected, damage)
    if complaint is not None and not options.reencode:
        raise complaint
    image = _decode_again(path, data, expected)
    if large:
        image.thumbnail((options.max_side, options.max_side), Image.Resampling.LANCZOS)
    image.save(buffer := io.BytesIO(), "JPEG", quality=QUALITY)
    if decoder.size(buffer.getvalue()) != image.size:
        raise BadPhoto(path, "refused by the training decoder", "also when encoded anew")
    return Packed(buffer.getvalue(), len(data), image.size, damage, complaint is not None, large)


def _complaint(
    path: Path, data: bytes, pixels: np.ndarray | None, expected: tuple[int, int]
) -> BadPhoto | None:
    """Why a photo cannot be packed as it is. pixels: what the training decoder makes of it."""
    if not data.startswith(b"\xff\xd8"):
        kind = _format(data)
        return BadPhoto(path, "not a JPEG", f"it is a {kind}" if kind else "")
    odd = BadPhoto(path, "turned differently by the training decoder", "its EXIF orientation is odd")
    if is_contradictory(data):
        return odd
    if pixels is None:
        _decode_again(path, data, expected)
        return BadPhoto(path, "refused by the training decoder")
    if pixels.shape[1::-1] != expected:
        # The mask was made by another decoder. Unless the photo changed, they disagree how it is to be
        # turned.
        _decode_again(path, data, expected)
        return odd
    if any(exif_blocks(data)) and not _stand_alike(pixels, _decode_again(path, data, expected)):
        return odd
    return None


def _stand_alike(pixels: np.ndarray, image: Image.Image) -> bool:
    """True if a photo by two decoders, of one size, is the same way up: half turns and mirrors do not show in
    the size. No other turn of it is more like the first."""
    square = image.width == image.height
    others = [image.transpose(turn) for turn in (Image.Transpose if square else _KEEP_SIZE)]
    seen = pixels[::STEP, ::STEP].astype(int)
    away = [np.abs(np.asarray(each)[::STEP, ::STEP] - seen).mean() for each in (image, *others)]
    return away[0] == min(away)


def _decode_again(path: Path, data: bytes, expected: tuple[int, int]) -> Image.Image:
    """Decode as the mask tool did; what it could decode then and cannot now has changed."""
    try:
        image = photos.decode_photo(data, path, math.prod(expected))
    except BadPhoto as error:
        raise UserError(f"{error}; it was good when its mask was made: put that file back") from error
    check_size(path, image.size, expected)
    return image


def _format(data: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format
    except Exception:  # PIL raises nearly anything on a damaged file
        return None


def _is_cmyk(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return image.mode == "CMYK"
