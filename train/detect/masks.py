"""Segmentations as COCO stores them: polygons, or run lengths, plain and compressed.

Run lengths go down the columns and begin with those of 0. Compressed, a number is written in pieces of five
bits, the lowest first, as characters from "0" on, the sixth bit saying that more follow; from the fourth
number on it is the difference to the one two before.
"""

from typing import NamedTuple

import numpy as np
from skimage.draw import polygon

_FIRST = ord("0")
_LONGEST = 13
"""Pieces of a number of 64 bits."""


class Polygons(NamedTuple):
    """An object as the union of polygons."""

    corners: tuple[np.ndarray, ...]
    """float64 [N, 2] each, at least 3 corners: x, y between pixels."""

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool [height, width]: the pixels whose middle is inside."""
        mask = np.zeros((height, width), bool)
        for x, y in (ring.T - 0.5 for ring in self.corners):
            mask[polygon(y, x, mask.shape)] = True
        return mask


class RunLengths(NamedTuple):
    """An object as run lengths of its mask."""

    counts: np.ndarray
    """int64 [N]: pixels of 0, of 1, of 0 …, down the columns."""

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool [height, width]."""
        values = np.arange(len(self.counts)) % 2 == 1
        return values.repeat(self.counts).reshape(width, height).T


Segmentation = Polygons | RunLengths


def read_segmentation(value: object, height: int, width: int) -> Segmentation:
    """The segmentation of an annotation; ValueError says what is wrong with it.

    value: lists of x, y, x, y …, or an object of `size` and `counts`, a list or compressed text.
    """
    if isinstance(value, list):
        return _polygons(value)
    if not isinstance(value, dict) or set(value) != {"size", "counts"}:
        raise ValueError("neither polygons nor an object of size and counts")
    if value["size"] != [height, width]:
        raise ValueError(f"size={value['size']}, the photo's is [{height}, {width}]")
    counts = value["counts"]
    if isinstance(counts, str):
        counts = decompress(counts)
    elif not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError("counts: neither whole numbers nor text")
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"counts: not the lengths of runs that make {height} x {width} pixels")
    return RunLengths(np.array(counts, np.int64))


def _polygons(value: list[object]) -> Polygons:
    rings = []
    for ring in value:
        try:
            flat = np.array(ring, float)
        except (ValueError, TypeError):
            flat = np.zeros(0)
        if flat.ndim != 1 or len(flat) < 6 or len(flat) % 2 or not np.isfinite(flat).all():
            raise ValueError("a polygon that is not a list of x, y of three or more corners")
        rings.append(flat.reshape(-1, 2))
    if not rings:
        raise ValueError("no polygon")
    return Polygons(tuple(rings))


def decompress(text: str) -> list[int]:
    """Compressed run lengths; ValueError if they are none."""
    counts: list[int] = []
    number = pieces = 0
    for character in text:
        piece = ord(character) - _FIRST
        if not 0 <= piece < 64 or pieces == _LONGEST:
            raise ValueError("counts: no compressed run lengths")
        number |= (piece & 31) << 5 * pieces
        pieces += 1
        if piece & 32:
            continue
        if piece & 16:  # negative
            number -= 1 << 5 * pieces
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = pieces = 0
    if pieces:
        raise ValueError("counts: the last number is cut short")
    return counts


def compress(mask: np.ndarray) -> str:
    """The compressed run lengths of a mask, bool [H, W]."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *ends, len(flat) - 1]).tolist()
    text: list[str] = []
    for place, count in enumerate(counts):
        text += _pieces(count - (counts[place - 2] if place > 2 else 0))
    return "".join(text)


def _pieces(number: int) -> list[str]:
    text: list[str] = []
    more = True
    while more:
        piece, number = number & 31, number >> 5
        more = number != (-1 if piece & 16 else 0)
        text.append(chr(_FIRST + piece + 32 * more))
    return text
