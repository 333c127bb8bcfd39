"""Photos as the offline tools open and check them; `dali_bgaug/photo_tree.py` lists them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dali_bgaug.decoding import MAX_PIXELS, too_large
from dali_bgaug.errors import UserError
from dali_bgaug.shards import member_key

Image.MAX_IMAGE_PIXELS = None  # we have a limit of our own, `check_pixels`
_ORIENTATION = 0x0112  # the EXIF tag
_QUARTER_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNS = _QUARTER_TURNS | {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
}


class BadPhoto(UserError):
    """The bytes of a photo are no picture that can be used; `reason` is the kind of defect, for counting.

    A file that cannot be read at all (gone, no permission, a failing disk) is a plain UserError instead:
    that is the machine's fault, and to leave photos out because of it would lose data.
    """

    def __init__(self, path: Path, reason: str, detail: str = "") -> None:
        self.path, self.reason, self.detail = path, reason, detail
        super().__init__(f"{path}: {reason}{f' ({detail})' if detail else ''}")

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.reason, self.detail)


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


def read_photo(path: Path, expected: int | None = None) -> bytes:
    """A photo's bytes. expected: how many they were when its mask was made.

    Raises:
        UserError: it cannot be read, or has another size than expected.
        BadPhoto: it is empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such photo; it was there when the masks were made") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend that and run again") from error
    if expected not in (None, len(data)):
        raise UserError(
            f"{path}: {len(data)} bytes, but {expected} when its mask was made; put that file back, or make "
            "the masks "
            "anew (make masks)"
        )
    if not data:
        raise BadPhoto(path, "empty file")
    return data


def decode_photo(data: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to RGB, upright (EXIF orientation applied), whatever format it is in.

    Raises:
        BadPhoto: truncated, damaged, not a picture, or of more than `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(path, image.size, max_pixels)
            image.load()
            turn = _TURNS.get(orientation(image))
            return (image if turn is None else image.transpose(turn)).convert("RGB")
    except MemoryError:
        raise  # of the machine, not of the photo
    except Image.UnidentifiedImageError:
        raise BadPhoto(path, "not a picture") from None
    except BadPhoto:
        raise
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise BadPhoto(path, "truncated or damaged", str(error)) from error


def open_photo(path: Path) -> Image.Image:
    """Read and decode (see `read_photo` and `decode_photo`)."""
    return decode_photo(read_photo(path), path)


def check_pixels(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    """A photo of more pixels is a BadPhoto. size: width, height."""
    if problem := too_large(*size, max_pixels):
        raise BadPhoto(path, "too large", f"it {problem}")


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
        return _QUARTER_TURNS.get(orientation(image))


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, 1 to 8; None without one.

    Of the EXIF block alone: PIL would also follow XMP, which the training decoder does not know.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return exif.get(_ORIENTATION)
    except Exception:  # a broken block, of which there are all kinds
        return None


def read_grey(path: Path) -> Image.Image:
    """A mask image as grey, mode L; 16-bit ones lose their lower half, floats are in 0..1 or 0..255.

    Raises:
        UserError: not a readable image, or a PNG with a wrong checksum, which loading does not look at.
    """
    try:
        with Image.open(path) as image:
            check_pixels(path, image.size, MAX_PIXELS)
            image.verify()
        with Image.open(path) as image:  # which `verify` has used up
            image.load()
            if image.mode.startswith("I"):
                values = np.asarray(image)
                return Image.fromarray(
                    (values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8)
                )
            if image.mode == "F":
                values = np.asarray(image)
                scale = 255 if values.max() <= 1 else 1
                return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))
            return image.convert("L")
    except MemoryError:
        raise
    except BadPhoto as error:
        raise UserError(str(error)) from None
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise UserError(f"{path}: not a readable mask image ({error}); write it again as PNG") from error
