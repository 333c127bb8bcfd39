"""Backgrounds of a batch: which views get another one, and who lends it.

Treating a donor's tile like a view costs as much as a view. A few donors of a batch are therefore treated
once each and shared by views of different photos. Every view's donor is uniform over the other usable photos
all the same; what sharing gives up is that donors of *different* photos' views are drawn independently.

Coins come first and know no pixels: whether a view's crop box shows foreground, where it matters, is for the
renderer to see (`Job.only_visible`), so no mask is needed here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dali_bgaug.views.options import BackgroundOptions, ViewOptions


class Backgrounds(NamedTuple):
    """The coins of a batch, tossed."""

    replace: np.ndarray
    """bool [N, views]: this view's background is to be replaced."""
    donor: np.ndarray
    """int32 [N, views]: whose tile comes behind it; -1 where none does."""
    matched: np.ndarray
    """bool [N, negatives]: this negative is to have its view's background."""


def draw_backgrounds(
    views: dict[str, ViewOptions],
    options: BackgroundOptions,
    lends: np.ndarray,
    strength: float,
    rng: np.random.Generator,
) -> Backgrounds:
    """Toss the coins of a batch and choose donors.

    Args:
        views: by name.
        options: how often, and what.
        lends: photos whose tile may be used, bool [N].
        strength: factor on the probabilities (`warmup_epochs`).
        rng: random numbers.
    """
    count, may = len(lends), np.array([view.background for view in views.values()])
    donor = np.full((count, len(views)), -1, np.int32)
    matched = np.zeros((count, len(options.negative_names)), bool)
    if options.kind == "none":
        return Backgrounds(np.zeros((count, len(views)), bool), donor, matched)
    replace = (rng.random((count, len(views))) < options.p_pos * strength) & may
    if options.uses_tiles:
        # Before the other augmentations a tile has its view's crop box: there is nothing to share.
        share = options.views_per_donor if options.stage == "after" else 1
        donor = choose_donors(replace, lends, donor_treatments(views, options)[1], share, rng)
        replace &= donor >= 0
    if options.coupled:
        matched |= replace[:, [list(views).index("key")]]
    else:
        matched |= rng.random(matched.shape) < options.p_neg * strength
    return Backgrounds(replace, donor, matched)


def donor_treatments(
    views: dict[str, ViewOptions], options: BackgroundOptions
) -> tuple[list[ViewOptions], list[int]]:
    """The different treatments of donors' tiles, and which of them each view takes (0 if it takes none)."""
    treatments: list[ViewOptions] = []
    treatment = []
    for view in views.values():
        crop = view.crop.replaced(fg_min=0.0)
        plain = ViewOptions(crop=crop)
        if options.donor == "full":
            plain = ViewOptions(crop=crop, photometric=view.photometric)
        if view.background and plain not in treatments:
            treatments.append(plain)
        treatment.append(treatments.index(plain) if view.background else 0)
    return treatments, treatment


def draw_others(size: int, negatives: int, rng: np.random.Generator) -> np.ndarray:
    """For every photo so many others of the batch, all different where there are enough: int [size,
    negatives]."""
    # A common order of the batch, in which each photo takes those some places further on.
    place = rng.permutation(size)
    steps = 1 + (
        rng.permutation(size - 1)[np.arange(negatives) % (size - 1)] if size > 1 else np.zeros(1, int)
    )
    return np.argsort(place)[(place[:, None] + steps) % size]


def choose_donors(
    wanted: np.ndarray,
    usable: np.ndarray,
    treatments: Sequence[int],
    views_per_donor: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """For every view that wants one, another photo of the batch whose tile may be used.

    Never the photo itself; never the donor of another view of the same photo while there is another choice.

    Args:
        wanted: views that want a donor, bool [N, views].
        usable: photos that may lend, bool [N].
        treatments: for each view the number of its treatment, 0 and up; a donor is treated for one treatment.
        views_per_donor: so many views take from one donor, on average.
        rng: random numbers.

    Returns:
        int32 [N, views]; -1 where there is no other photo, or none is wanted.
    """
    order = rng.permutation(np.flatnonzero(usable))
    chosen = np.full(wanted.shape, -1, np.int32)
    start = 0
    for treatment in range(max(treatments) + 1):
        views = [view for view, its in enumerate(treatments) if its == treatment and wanted[:, view].any()]
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
