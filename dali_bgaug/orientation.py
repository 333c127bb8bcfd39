"""EXIF orientation of photos and masks, read as the training decoder reads it.

Programs differ in what they do with an odd tag. What counts is the decoder that training uses, nvImageCodec:

* a number of any type is taken by its first two bytes; one that is not 1 to 8 is no turn;
* of two tags in a block the first counts;
* a block is passed over whole if it ends early, or if a tag that is read with it points outside of it;
* XMP, the thumbnail's tags, and whatever comes after the start of the first scan are not looked at.

Of several blocks that do not say the same it takes the size by one and the turn by another, which ends the
process or makes an image of nothing (`is_contradictory`).
"""

import io
import struct
from collections.abc import Iterator

from PIL import Image

_ORIENTATION = 0x0112
_EXIF = b"Exif\0\0"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x8298)
_RATIONALS = {0x011A: 1, 0x011B: 1, 0x013E: 2, 0x013F: 6, 0x0211: 3, 0x0214: 6}
"""Tags that the decoder follows, with how many rationals it reads there."""
_SHORTS = (_ORIENTATION, 0x0128, 0x0213)


def read_orientation(data: bytes) -> int:
    """The EXIF orientation of an image in any format, 1 to 8; 1 also without one.

    A TIFF's is 1: PIL turns it as it loads it (`tiff_orientation`).
    """
    numbers = [number for number in map(_read_block, exif_blocks(data)) if number]
    return numbers[-1] if numbers else 1


def is_contradictory(data: bytes) -> bool:
    """Whether a JPEG's EXIF blocks do not say the same, so that it must not be given to the decoder."""
    numbers = [number for number in map(_read_block, exif_blocks(data)) if number is not None]
    return bool(numbers) and (numbers[0] or 1) != read_orientation(data)


def tiff_orientation(data: bytes) -> int:
    """The orientation of a TIFF, which is an EXIF block itself, 1 to 8; 1 of any other format."""
    return (_read_block(data) or 1) if data[:4] in (b"II*\0", b"MM\0*") else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """An image as it is to be seen."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def stored(image: Image.Image, orientation: int) -> Image.Image:
    """An upright image as its file has it: undoes `upright`."""
    return upright(image, {6: 8, 8: 6}.get(orientation, orientation))


def exif_blocks(data: bytes) -> Iterator[bytes]:
    """The EXIF blocks of an image; of a JPEG those before its first scan."""
    if not data.startswith(b"\xff\xd8"):
        try:
            with Image.open(io.BytesIO(data)) as image:
                if block := image.info.get("exif"):
                    yield block.removeprefix(_EXIF)
        except Exception:  # PIL raises nearly anything on a damaged file
            return
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xFF:  # of which any number may come before a marker
            place += 1
            continue
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:
            return
        if marker == 0xE1 and data.startswith(_EXIF, place + 4):
            yield data[place + 10 : place + 2 + size]
        place += 2 + size


def _read_block(block: bytes) -> int | None:
    """Orientation in an EXIF block, 1 to 8; None if it has no such tag, 0 if it is damaged."""
    order = "<" if block[:2] == b"II" else ">"

    def number(kind: str, place: int) -> int:
        return struct.unpack_from(order + kind, block, place)[0]

    found = None
    try:
        if number("H", 2) != 42:
            return 0
        start = number("I", 4) + 2
        for place in range(start, start + 12 * number("H", start - 2), 12):
            tag = number("H", place)
            if tag in _TEXTS:
                size = number("I", place + 4)
                if size + (number("I", place + 8) if size > 4 else 8) > len(block):
                    return 0
            elif tag in _RATIONALS:
                number("I", number("I", place + 8) + 8 * _RATIONALS[tag] - 4)
            elif tag in _SHORTS:
                value = number("H", place + 8)
                found = value if tag == _ORIENTATION and found is None else found
    except struct.error:  # it points outside of the block
        return 0
    return found if found is None or found in _TURNS else 1
