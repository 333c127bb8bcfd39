"""Who lends whom a background: the donors of BG_Random and BG_Swaps.

Treating a donor's tile like a view costs as much as a view. A few donors of a batch are therefore treated
once each and shared by views of different photos. Every view's donor is uniform over the other usable photos
all the same; what sharing gives up is that donors of *different* photos' views are drawn independently.
"""

from collections.abc import Sequence

import numpy as np


def choose_donors(
    wanted: np.ndarray,
    usable: np.ndarray,
    looks: Sequence[int],
    views_per_donor: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """For every view that wants one, another photo of the batch whose tile may be used.

    Never the photo itself; never the donor of another view of the same photo while there is another choice.

    Args:
        wanted: views that want a donor, bool [N, views].
        usable: photos that may lend, bool [N].
        looks: for each view the number of its look, 0 and up; a donor is treated for one look.
        views_per_donor: so many views take from one donor, on average.
        rng: random numbers.

    Returns:
        int32 [N, views]; -1 where there is no other photo, or none is wanted.
    """
    order = rng.permutation(np.flatnonzero(usable))
    chosen = np.full(wanted.shape, -1, np.int32)
    start = 0
    for look in range(max(looks) + 1):
        views = [view for view, its in enumerate(looks) if its == look and wanted[:, view].any()]
        count = int(wanted[:, views].sum())
        if not views or not len(order):
            continue
        # At least as many as leave a choice beside oneself and the donors of one's other views.
        size = min(max(-(-count // views_per_donor), len(views) + 1), len(order))
        pool = order[np.arange(start, start + size) % len(order)]
        start += size
        for view in views:
            photos = np.flatnonzero(wanted[:, view])
            others = pool != photos[:, None]
            fresh = others & (pool[:, None] != chosen[photos][:, None, :]).all(axis=-1)
            allowed = np.where(fresh.any(axis=1, keepdims=True), fresh, others)
            pick = np.where(allowed, rng.random(allowed.shape), -1).argmax(axis=1)
            chosen[photos, view] = np.where(allowed.any(axis=1), pool[pick], -1)
    return chosen
