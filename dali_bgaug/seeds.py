"""Seeds for DALI operators."""

import hashlib


def derive(seed: int, rank: int, name: str) -> int:
    """A seed in [1, 2^31) from the run's seed, the rank and the operator's name.

    DALI numbers operators without a seed by their place in the graph, so that adding one changes every
    stream after it; a seed from the *name* changes nothing else. Two ranks never share a stream.
    """
    digest = hashlib.sha256(f"{seed}/{rank}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % (2**31 - 1) + 1
