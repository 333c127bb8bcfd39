import io

import numpy as np
from PIL import Image

from dali_bgaug.decoding import MAX_PIXELS, Decoder


def _jpeg(width: int, height: int) -> bytes:
    Image.new("L", (width, height)).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(_jpeg(64, 32))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_too_many_pixels_are_not_decoded() -> None:
    decoder = Decoder()
    assert decoder.peek(_jpeg(64, 32)) == (64, 32)
    assert decoder.problem(_jpeg(64, 32), 64 * 32) is None
    assert decoder.problem(_jpeg(64, 32), 64 * 32 - 1).startswith("has 64 x 32 pixels, more than 2,047")
    assert decoder.problem(claiming(65000, 60000), MAX_PIXELS).startswith(
        "has 65000 x 60000 pixels, more than 100,000,000"
    )


def test_what_cannot_be_decoded_is_said_and_the_next_can() -> None:
    decoder = Decoder()
    for damaged in (b"", b"no image at all", _jpeg(64, 32)[:80]):
        assert decoder.peek(damaged) is None
        assert decoder.problem(damaged, MAX_PIXELS) == "cannot be decoded"
        assert decoder.problem(_jpeg(8, 8), MAX_PIXELS) is None


def test_the_decoder_says_which() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    whole = {}
    for kind in ("JPEG", "PNG"):
        Image.fromarray(photo).save(buffer := io.BytesIO(), kind)
        whole[kind] = buffer.getvalue()
    jpeg = whole["JPEG"]
    damaged = {"empty": b"", "garbage": b"no image at all" * 50, "half": jpeg[: len(jpeg) // 2]}
    damaged["nearly"] = jpeg[:-20]
    decoder = Decoder()
    for _ in range(3):
        found = {name: decoder.size(data) for name, data in (whole | damaged).items()}
        assert {name for name, size in found.items() if size is None} == set(damaged)
        assert found["JPEG"] == found["PNG"] == (96, 64)
