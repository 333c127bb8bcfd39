"""Damage inside a JPEG that decoders forgive: they warn, fill with grey or noise, and return an image."""

import re

import numpy as np

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The marker that ends a scan; the others are part of it."""
_PROGRESSIVE, _SCAN, _END = 0xC2, 0xDA, 0xD9


def find_damage(data: bytes, warning: str) -> str:
    """Damage inside a JPEG that can be decoded, in words; empty if none is known.

    warning: the decoder's (`Decoder.warning`). libjpeg warns where a scan ends early, or where bytes are left
    over after it, as of a scan that was overwritten. It does not of a progressive photo without its later
    scans, which is only less sharp.
    """
    if not data.startswith(b"\xff\xd8"):
        return ""
    return warning or _find_missing_scans(data)


def _find_missing_scans(data: bytes) -> str:
    """Missing scans of a progressive JPEG: whether all components' coefficients come to their last bit."""
    exact: dict[int, np.ndarray] = {}
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _END:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + size]
        place += 2 + size
        if marker == 0xFF:
            place -= 1 + size  # one more of the bytes that may come before a marker
        elif marker == _PROGRESSIVE:
            exact = {number: np.zeros(64, bool) for number in body[6::3]}
        elif marker == _SCAN:
            if not exact or len(body) < 6:
                return ""  # not progressive, or no scan
            if body[-1] & 15 == 0:  # no bits are left for later
                for number in body[1:-3:2]:
                    exact.setdefault(number, np.zeros(64, bool))[body[-3] : body[-2] + 1] = True
            following = _AFTER_SCAN.search(data, place)
            place = following.start() if following else len(data)
    return "" if all(found.all() for found in exact.values()) else "scans of a progressive JPEG are missing"
