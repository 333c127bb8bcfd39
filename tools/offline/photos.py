"""Photos as the offline tools open and check them; `dali_bgaug/photo_tree.py` lists them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dali_bgaug.decoding import MAX_PIXELS, too_large
from dali_bgaug.errors import UserError
from dali_bgaug.orientation import read_orientation, upright
from dali_bgaug.shards import member_key

Image.MAX_IMAGE_PIXELS = None  # we have a limit of our own, `check_pixels`


class BadPhoto(UserError):
    """The bytes of a photo are no image that can be used; `reason` is the kind of defect, for counting.

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
        raise UserError(f"{path}: cannot be read ({error.strerror}); fix that and run again") from error
    if expected not in (None, len(data)):
        raise UserError(
            f"{path}: {len(data)} bytes, but {expected} when its mask was made; put that file back, or make "
            "the masks anew (make masks)"
        )
    if not data:
        raise BadPhoto(path, "empty file")
    return data


def decode_photo(data: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to RGB, upright (EXIF orientation applied), whatever format it is in.

    Raises:
        BadPhoto: truncated, damaged, not an image, or of more than `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(path, image.size, max_pixels)
            image.load()
            return _to_rgb(upright(image, read_orientation(data)))
    except MemoryError:
        raise  # of the machine, not of the photo
    except Image.UnidentifiedImageError:
        raise BadPhoto(path, "not an image") from None
    except BadPhoto:
        raise
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise BadPhoto(path, "truncated or damaged", str(error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """8 bits a channel; wide greys, which PIL would clip, by what white is in them."""
    white = white_level(image)
    if white is None:
        raise ValueError("floats or 32-bit numbers, which do not say what white is")
    if white == 255:
        return image.convert("RGB")
    return Image.fromarray((np.asarray(image) * (255 / white)).round().astype(np.uint8)).convert("RGB")


def white_level(image: Image.Image) -> int | None:
    """The white level of an image, by its kind; None of floats and 32-bit numbers, which do not say."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return 65535
    return None if image.mode in ("I", "F") else 255


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
