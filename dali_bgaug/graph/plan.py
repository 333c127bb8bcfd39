"""What happens to each photo of a batch, in numbers: windows, backgrounds, donors.

All that depends on the photos comes from one call of NumPy a batch; `operators.py` and `compiled.py` carry it
out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert
from pydantic import Field

from dali_bgaug.config import Options
from dali_bgaug.donors import choose_donors
from dali_bgaug.graph.background import BackgroundOptions
from dali_bgaug.graph.context import constant
from dali_bgaug.graph.crop import Window, split_windows
from dali_bgaug.graph.masks import draw_distortions, foreground_box
from dali_bgaug.graph.photometric import PhotometricOptions
from dali_bgaug.graph.read import Source
from dali_bgaug.windows import UNIFORMS, CropOptions, choose_windows, coverage, has_foreground


class ViewOptions(Options):
    """One kind of view."""

    count: int = Field(default=1, ge=0)
    """Views of this kind per photo, each drawn by itself; several are named `global_0`, `global_1`, …"""
    crop: CropOptions = CropOptions()
    photometric: PhotometricOptions = PhotometricOptions()
    background: bool = True
    """Whether its background may be replaced (the paper's ablations give one to query or key alone)."""


def expand(kinds: dict[str, ViewOptions]) -> dict[str, ViewOptions]:
    """The single views of these kinds, by name."""
    return {
        name if options.count == 1 else f"{name}_{number}": options
        for name, options in kinds.items()
        for number in range(options.count)
    }


def views_with_mask(views: dict[str, ViewOptions], background: BackgroundOptions) -> set[str]:
    """The views whose mask may be needed: for their own background, or for negatives that take it."""
    if background.kind == "none":
        return set()
    own = {name for name, options in views.items() if options.background}
    return own | ({background.matches} if background.kind == "swaps" else set())


@dataclass(frozen=True)
class Decisions:
    """A batch's numbers: arrays whose first axis is the batch, then by view (negative, look)."""

    windows: np.ndarray
    """float32 [N, views + looks, 4]: of the photo; then, if donors' tiles are treated, of the tile."""
    replace: np.ndarray
    """bool [N, views]."""
    matched: np.ndarray
    """bool [N, negatives]."""
    used: np.ndarray
    """bool [N, looks]: whether this photo's tile is used with a look."""
    donor: np.ndarray
    """int32 [N, views]: the donor's place in the batch, one's own where there is none."""
    distortion: np.ndarray
    """float32 [N, views, 2, 3]: see `masks.draw_distortions`; one zero a view if there is none."""


@dataclass(frozen=True)
class Plan:
    """A batch's numbers as nodes on the CPU, in lists by the number of a view, a negative or a look."""

    windows: DataNode
    """float32 [views, 4]."""
    window: list[Window]
    replaced: DataNode
    """bool [views]."""
    replace: list[DataNode]
    with_mask: list[DataNode]
    """bool: whether a view's mask is needed, for itself or for a negative."""
    matched: list[DataNode]
    """bool, by negative."""
    donor: list[DataNode]
    """int32: the donor's place in the batch, one's own where there is none."""
    distortion: list[DataNode]
    """float32 [2, 3]: see `masks.draw_distortions`."""
    looks: list[ViewOptions]
    """What donors' tiles are treated like."""
    look: list[int]
    """By view: which of them."""
    used: list[DataNode]
    """bool, by look: whether this photo's tile is used with it, and"""
    tile_window: list[Window]


@do_not_convert
def make_plan(source: Source, views: dict[str, ViewOptions], background: BackgroundOptions) -> Plan:
    """Define the numbers of a batch.

    Args:
        source: what the graph starts from; the sample has a mask if a view has an `fg_min`, or backgrounds
            are replaced, and a tile if backgrounds come from other photos.
        views: by name.
        background: which backgrounds they get.
    """
    looks, look = donor_looks(views, background)
    tiles = len(looks) if background.uses_tiles and background.stage == "after" else 0
    count, negatives = len(views), background.negatives if background.kind == "swaps" else 0
    decide, inputs = decider(source, views, background)
    if background.kind == "none":
        [windows] = source.context.of_batch(lambda *batch: (decide(*batch).windows,), *inputs, outputs=1)
        replaced = constant(np.zeros(count), bool, "cpu")
        window = split_windows(windows, count)
        return Plan(windows, window, replaced, [], [], [], [], [], looks, look, [], [])
    match = list(views).index(background.matches) if background.kind == "swaps" else None

    def numbers(iteration: int, *columns: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        decided = decide(iteration, *columns)
        with_mask = decided.replace.copy()
        if match is not None:
            with_mask[:, match] |= decided.matched.any(axis=1)
        flags = np.concatenate([decided.replace, with_mask, decided.matched, decided.used], axis=1)
        return decided.windows, flags, decided.donor, decided.distortion

    boxes, flags, donor, distortion = source.context.of_batch(numbers, *inputs, outputs=4)
    flag = [flags[number] for number in range(2 * count + negatives + tiles)]
    window = split_windows(boxes, count + tiles)
    return Plan(
        windows=boxes[0:count],
        window=window[:count],
        replaced=flags[0:count],
        replace=flag[:count],
        with_mask=flag[count : 2 * count],
        matched=flag[2 * count : 2 * count + negatives],
        donor=[donor[number] for number in range(count)],
        distortion=[distortion[number] for number in range(count)],
        looks=looks,
        look=look,
        used=flag[2 * count + negatives :],
        tile_window=window[count:],
    )


@do_not_convert
def donor_looks(
    views: dict[str, ViewOptions], background: BackgroundOptions
) -> tuple[list[ViewOptions], list[int]]:
    """The different looks that donors' tiles get, and which of them each view takes (0 if it takes none)."""
    looks: list[ViewOptions] = []
    look = []
    for options in views.values():
        crop = options.crop.model_copy(update={"fg_min": 0.0})
        plain = ViewOptions(crop=crop)
        if background.donor == "full":
            plain = ViewOptions(crop=crop, photometric=options.photometric)
        if options.background and plain not in looks:
            looks.append(plain)
        look.append(looks.index(plain) if options.background else 0)
    return looks, look


def decider(
    source: Source, views: dict[str, ViewOptions], background: BackgroundOptions
) -> tuple[Callable[..., Decisions], list[DataNode]]:
    """The function that decides, (iteration, columns of the batch) -> Decisions, and its inputs' nodes."""
    context, sample, names = source.context, source.sample, list(views)
    inputs = [sample[name] for name in ("shape", "mask", "tile.jpg") if name in sample]
    crops = [options.crop for options in views.values()]
    may_replace = np.array([options.background for options in views.values()])
    needs_mask = [name in views_with_mask(views, background) for name in names]
    masked = "mask" in sample
    looks, look = donor_looks(views, background)

    def decide(iteration: int, shapes: list[np.ndarray], *rest: list[np.ndarray]) -> Decisions:
        height, width = np.stack(shapes)[:, :2].T
        count = len(shapes)
        uniforms = context.generator("windows", iteration).random((count, len(crops), UNIFORMS), np.float32)
        packed = np.stack(rest[0]) if masked else None
        cells = coverage(packed, source.mask_size) if masked else None
        windows = choose_windows(uniforms, height, width, crops, cells)
        no, one = np.zeros((count, 0), bool), np.arange(count, dtype=np.int32)[:, None]
        if background.kind == "none":
            return Decisions(windows, no, no, no, one, no)

        strength, rng = context.strength(iteration), context.generator("backgrounds", iteration)
        visible = has_foreground(windows, cells)
        replace = (rng.random(visible.shape) < background.p_pos * strength) & visible & may_replace
        donor, used, boxes = np.repeat(one, len(crops), axis=1), no, windows
        if background.uses_tiles:
            usable = np.array([len(tile) > 0 for tile in rest[-1]])
            share = background.views_per_donor if background.stage == "after" else 1
            chosen = choose_donors(replace, usable, look, share, rng)
            replace &= chosen >= 0
            donor = np.where(replace, chosen, donor)
            if background.stage == "after":
                used = np.zeros((count, len(looks)), bool)
                photo, view = np.nonzero(replace)
                used[donor[photo, view], np.array(look)[view]] = True
                boxes = np.concatenate(
                    [windows, _tile_windows(rng, height, width, looks, background)], axis=1
                )
        matched = no
        if background.kind == "swaps":
            match = names.index(background.matches)
            if background.coupled:
                coins = np.repeat(replace[:, [names.index("key")]], background.negatives, axis=1)
            else:
                coins = rng.random((count, background.negatives)) < background.p_neg * strength
            matched = coins & visible[:, [match]]
        return Decisions(boxes, replace, matched, used, donor, _distortions(iteration, windows, packed))

    def _distortions(iteration: int, windows: np.ndarray, packed: np.ndarray) -> np.ndarray:
        options = background.distortion
        if not options.any:
            return np.zeros((len(windows), len(crops), 1), np.float32)
        rng, boxes = context.generator("distortions", iteration), foreground_box(packed, source.mask_size)
        drawn = np.zeros((len(windows), len(crops), 2, 3), np.float32)
        for view in np.flatnonzero(needs_mask):
            drawn[:, view] = draw_distortions(options, windows[:, view], boxes, crops[view].size, rng)
        return drawn

    return decide, inputs


def _tile_windows(
    rng: np.random.Generator,
    height: np.ndarray,
    width: np.ndarray,
    looks: list[ViewOptions],
    background: BackgroundOptions,
) -> np.ndarray:
    """A window of every tile for each look, float32 [N, looks, 4]; a tile has its photo's proportions."""
    shape = (len(height), len(looks))
    if background.donor == "none":
        return np.broadcast_to(np.array([0, 0, 1, 1], np.float32), (*shape, 4))
    uniforms = rng.random((*shape, UNIFORMS), np.float32)
    return choose_windows(uniforms, height, width, [options.crop for options in looks])
