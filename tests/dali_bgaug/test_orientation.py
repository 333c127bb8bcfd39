"""Every spelling of EXIF's orientation, as the decoder that training uses reads it."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.decoding import Decoder
from dali_bgaug.orientation import is_contradictory, read_orientation, upright

BYTE, ASCII, SHORT, LONG, RATIONAL, SSHORT = 1, 2, 3, 4, 5, 8
UNIT, MAKE, X_RESOLUTION, ORIENTATION = 0x0128, 0x010F, 0x011A, 0x0112
_FORMAT = {BYTE: "B", SHORT: "H", LONG: "I", SSHORT: "h"}

Entry = tuple[int, int, int | bytes]
"""Tag, type, value."""


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder()


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    """A JPEG that no turn maps onto itself."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[4:20, 4:30] = 255, 0, 0
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG", quality=95)
    return buffer.getvalue()


def _directory(order: str, entries: list[Entry], following: int = 0) -> bytes:
    data = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        packed = value if isinstance(value, bytes) else struct.pack(order + _FORMAT[kind], value)
        count = 50 if kind == ASCII else 1
        data += struct.pack(f"{order}HHI", tag, kind, count) + packed.ljust(4, b"\0")
    return data + struct.pack(f"{order}I", following)


def _block(order: str, entries: list[Entry], thumbnail: list[Entry] | None = None) -> bytes:
    """An EXIF block, with the name that begins it."""
    head = b"Exif\0\0" + (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    end = 8 + len(_directory(order, entries))
    first = _directory(order, entries, end if thumbnail else 0)
    return head + first + (_directory(order, thumbnail) if thumbnail else b"")


def _insert(jpeg: bytes, *blocks: bytes, marker: int = 0xE1) -> bytes:
    segments = (bytes([0xFF, marker]) + struct.pack(">H", len(block) + 2) + block for block in blocks)
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def _seen(decoder: Decoder, data: bytes, jpeg: bytes) -> int:
    """By which orientation the decoder turns a JPEG."""
    pixels = decoder.decode(data).astype(int)
    with Image.open(io.BytesIO(jpeg)) as image:
        turned = [np.asarray(upright(image, number)).astype(int) for number in range(1, 9)]
    (found,) = (
        number
        for number, other in enumerate(turned, 1)
        if other.shape == pixels.shape and np.abs(other - pixels).mean() < 3
    )
    return found


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535])
def test_values(decoder: Decoder, jpeg: bytes, order: str, value: int) -> None:
    data = _insert(jpeg, _block(order, [(ORIENTATION, SHORT, value)]))
    expected = value if 1 <= value <= 8 else 1
    assert read_orientation(data) == _seen(decoder, data, jpeg) == expected


@pytest.mark.parametrize(
    ("order", "kind", "expected"),
    [
        ("<", BYTE, 6),
        ("<", LONG, 6),
        ("<", SSHORT, 6),
        (">", BYTE, 1),
        (">", LONG, 1),
        (">", SSHORT, 6),
    ],
)
def test_types(decoder: Decoder, jpeg: bytes, order: str, kind: int, expected: int) -> None:
    """The first two bytes are read, whatever the type says."""
    data = _insert(jpeg, _block(order, [(ORIENTATION, kind, 6)]))
    assert read_orientation(data) == _seen(decoder, data, jpeg) == expected


SIX, THREE, PLAIN = (ORIENTATION, SHORT, 6), (ORIENTATION, SHORT, 3), (UNIT, SHORT, 2)


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize(
    ("entries", "thumbnail", "expected"),
    [
        ([SIX, THREE], None, 6),
        ([(ORIENTATION, SHORT, 0), THREE], None, 1),
        ([PLAIN], [SIX], 1),
        ([THREE], [SIX], 3),
        ([SIX, (X_RESOLUTION, RATIONAL, b"\xff\xff\xff\xff")], None, 1),
        ([(MAKE, ASCII, b"\xff\0\0\xff"), SIX], None, 1),
        ([(0x9999, ASCII, b"\xff\0\0\xff"), SIX], None, 6),
    ],
    ids=["twice", "none first", "thumbnail's", "both", "bad rational", "bad text", "bad unknown"],
)
def test_entries(
    decoder: Decoder,
    jpeg: bytes,
    order: str,
    entries: list[Entry],
    thumbnail: list[Entry] | None,
    expected: int,
) -> None:
    data = _insert(jpeg, _block(order, entries, thumbnail))
    assert read_orientation(data) == _seen(decoder, data, jpeg) == expected


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
def test_blocks_that_are_cut(decoder: Decoder, jpeg: bytes, order: str) -> None:
    """The turn counts once the entries are all there."""
    block = _block(order, [SIX, PLAIN])
    for cut in range(1, len(block) - 6):
        data = _insert(jpeg, block[:-cut])
        expected = 6 if cut <= 6 else 1  # 4 bytes end the directory, 2 the last entry
        assert read_orientation(data) == _seen(decoder, data, jpeg) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ((b"x" * 60_000,) * 3, 6),
        ((b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='3'/>",), 6),
    ],
    ids=["other data", "XMP"],
)
def test_blocks_come_after_others(
    decoder: Decoder, jpeg: bytes, before: tuple[bytes, ...], expected: int
) -> None:
    data = _insert(jpeg, *before, _block("<", [SIX]))
    assert read_orientation(data) == _seen(decoder, data, jpeg) == expected
    data = _insert(_insert(jpeg, _block("<", [SIX])), *before, marker=0xE2)
    assert read_orientation(data) == _seen(decoder, data, jpeg) == expected


def test_what_is_no_exif_block_does_not_count(decoder: Decoder, jpeg: bytes) -> None:
    block = _block("<", [SIX])
    scan = jpeg.index(b"\xff\xda")
    for data in (
        _insert(jpeg, b"exif" + block[4:]),
        _insert(jpeg, block, marker=0xE2),
        _insert(jpeg, block.replace(b"*", b"+")),
        _insert(jpeg, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='3'/>"),
        jpeg[:-2] + _insert(jpeg, block)[2 : -len(jpeg) + 2] + jpeg[-2:],
    ):
        assert read_orientation(data) == _seen(decoder, data, jpeg) == 1
    late = jpeg[:scan] + _insert(jpeg, block)[2 : -len(jpeg) + 2] + jpeg[scan:]
    assert read_orientation(late) == _seen(decoder, late, jpeg) == 6


@pytest.mark.parametrize(
    ("first", "second", "contradictory"),
    [(6, 6, False), (6, None, False), (None, 6, False), (6, 3, True), (3, 2, True), (9, 6, True)],
)
def test_blocks_that_say_different_things(
    decoder: Decoder, jpeg: bytes, first: int | None, second: int | None, contradictory: bool
) -> None:
    """Nobody can say how these are turned; decoding some of them ends the process."""
    entries = [[(ORIENTATION, SHORT, value)] if value else [PLAIN] for value in (first, second)]
    data = _insert(jpeg, *(_block("<", each) for each in entries))
    assert is_contradictory(data) == contradictory
    if contradictory:
        assert decoder.decode(data) is None
    else:
        assert read_orientation(data) == _seen(decoder, data, jpeg) == 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_other_formats(kind: str, value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    Image.new("RGB", (8, 8)).save(buffer := io.BytesIO(), kind, exif=exif)
    assert read_orientation(buffer.getvalue()) == value


def test_what_is_no_image_has_no_orientation() -> None:
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\0", b"no image"):
        assert read_orientation(data) == 1
