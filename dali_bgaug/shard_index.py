"""DALI's index of a shard: where each sample's members lie in the tar.

v1.2 SAMPLES
EXTENSION OFFSET BYTES NAME  EXTENSION OFFSET BYTES NAME …     a line a sample
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_bgaug.errors import UserError

_WORDS = 4
REMEDY = "restore it from where it was copied, or delete manifest.json and pack the shards again"
"""Remedy for shards that are not as they were packed."""


def locate_samples(index: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """The samples of one shard, in order: the key, and each member's offset and bytes in the tar, by
    extension."""
    for line in index.read_text(encoding="utf-8").splitlines()[1:]:
        words = line.split(" ")
        members = zip(words[::_WORDS], words[1::_WORDS], words[2::_WORDS], strict=True)
        places = {extension: (int(offset), int(size)) for extension, offset, size in members}
        yield words[3].removesuffix(f".{words[0]}"), places


class Members(NamedTuple):
    """Where the members of a shard's samples lie in its tar."""

    extensions: tuple[str, ...]
    offset: np.ndarray
    """int64 [samples, extensions], in bytes; so is"""
    size: np.ndarray


def read_index(index: Path, samples: int, tar_bytes: int, sizes: Mapping[str, int | None]) -> Members:
    """Read an index, and refuse one that is not of its tar.

    Args:
        index: the file.
        samples: how many the manifest says there are.
        tar_bytes: size of the tar.
        sizes: a sample's members in order, with their bytes, or None where these differ.

    Raises:
        UserError: another format or number of samples; an entry that is not whole, lies not in the tar or
            has another size.
    """
    head, _, body = index.read_bytes().partition(b"\n")
    if head.split(b" ") != [b"v1.2", str(samples).encode()]:
        raise UserError(f"{index}: begins with {head[:40]!r}, not with 'v1.2 {samples}'; {REMEDY}")
    lines = body.removesuffix(b"\n").split(b"\n")
    count = _WORDS * len(sizes)
    words = b" ".join(lines).split(b" ")
    if len(lines) != samples:
        raise UserError(f"{index}: has {len(lines)} entries, manifest.json says {samples}; {REMEDY}")
    if len(words) != count * samples:
        wrong = next(number for number, line in enumerate(lines) if len(line.split(b" ")) != count)
        raise UserError(
            f"{index}, entry {wrong + 1}: {len(lines[wrong].split(b' '))} words, not {count}; {REMEDY}"
        )
    offset, size = (_numbers(words[start::_WORDS], index).reshape(samples, -1) for start in (1, 2))
    fixed = np.array([-1 if known is None else known for known in sizes.values()])
    wrong = (offset < 0) | (size < 0) | (offset > tar_bytes - size) | ((fixed >= 0) & (size != fixed))
    if words[::_WORDS] != [extension.encode() for extension in sizes] * samples:
        wrong |= np.array(words[::_WORDS]).reshape(samples, -1) != [extension.encode() for extension in sizes]
    if wrong.any():
        row, member = np.argwhere(wrong)[0]
        extension = list(sizes)[member]
        entry = b" ".join(words[count * row + _WORDS * member :][:_WORDS])
        right = "" if sizes[extension] is None else f" of {sizes[extension]} bytes"
        raise UserError(
            f"{index}, entry {row + 1}: {entry!r} is no {extension}{right} in a tar of {tar_bytes} bytes; "
            f"{REMEDY}"
        )
    return Members(tuple(sizes), offset, size)


def _numbers(words: list[bytes], index: Path) -> np.ndarray:
    """Words as int64, at once: one by one they would take seconds of a large set."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a word that is no number
        try:
            numbers = np.fromstring(b" ".join(words), np.int64, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise UserError(f"{index}: an offset or a size is no number; {REMEDY}") from error
    if len(numbers) != len(words):
        raise UserError(f"{index}: an offset or a size is no number; {REMEDY}")
    return numbers
