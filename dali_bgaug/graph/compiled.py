"""Views by compiled kernels, on the CPU: see `views.py`.

A batch takes one call of NumPy, which decides everything, and one operator a view (`adapters.py`).
"""

from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

from dali_bgaug.graph import adapters, inspect, kernels
from dali_bgaug.graph.adapters import Other, Row
from dali_bgaug.graph.background import BackgroundOptions, draw_grey
from dali_bgaug.graph.context import Context, constant
from dali_bgaug.graph.crop import NormaliseOptions, decode
from dali_bgaug.graph.outputs import Views
from dali_bgaug.graph.photometric import PhotometricOptions, draw_look
from dali_bgaug.graph.plan import Decisions, ViewOptions, decider, donor_looks
from dali_bgaug.graph.read import Source


class _Plan(NamedTuple):
    """What a batch is made with: nodes, one sample a photo."""

    rows: DataNode
    """float32 [rows, kernels.LENGTH]: of each view, of each look of a donor's tile, of each negative."""
    replaced: DataNode
    """bool [views]."""
    matched: list[DataNode]
    """bool, by negative."""
    used: list[DataNode]
    """bool, by look: whether this photo's tile is used with it."""
    donor: DataNode | None
    """int32 [views]: the donor's place in the batch."""


def make(
    source: Source,
    views: dict[str, ViewOptions],
    background: BackgroundOptions,
    statistics: NormaliseOptions,
    half: bool,
) -> Views:
    """See `views.make_views`; views: by name."""
    context, sample = source.context, source.sample
    photo, packed = decode(context, sample["jpg"]), sample.get("mask")
    looks, look = donor_looks(views, background)
    plan = _decide(source, views, background, statistics, looks)
    rows = [Row(plan.rows, number) for number in range(len(views) + len(plan.used) + len(plan.matched))]
    pools = [
        _treat_tiles(context, used, sample["tile.jpg"], rows[len(views) + number], looks[number].crop.size)
        for number, used in enumerate(plan.used)
    ]
    made = Views({}, plan.replaced, plan.matched)
    if source.with_sources:
        made.sources |= inspect.sources(source, photo) | {"window": plan.rows[0 : len(views), 0:4]}
    for number, (name, options) in enumerate(views.items()):
        inputs, size = [photo, rows[number]], options.crop.size
        if not options.background or background.kind == "none":
            view = adapters.make_view(size, *inputs)
        elif background.kind == "rm":
            view = adapters.make_view_over_grey(size, *inputs, packed)
        else:
            behind = Other(pools[look[number]], plan.donor, number)
            view = adapters.make_view_over_image(size, *inputs, packed, behind)
        made.view[name] = fn.cast(view, dtype=types.FLOAT16) if half else view
    if background.kind == "swaps":
        view, size = made.view[background.matches], views[background.matches].crop.size
        negatives = rows[len(views) + len(plan.used) :]

        def match(number: int, images: DataNode, place: DataNode) -> DataNode:
            return adapters.copy_over(size, view, negatives[number], packed, Other(images, place))

        made.match = match
    return made


def _treat_tiles(context: Context, used: DataNode, tile: DataNode, row: Row, size: int) -> DataNode:
    """Tiles of the donors that are used, made into views; elsewhere a stand-in that nobody reads."""
    if used:
        result = adapters.make_view(size, decode(context, tile), row)
    else:
        result = constant(np.zeros((1, 1, 3)), np.float32, "cpu")
    return result


@do_not_convert
def _decide(
    source: Source,
    views: dict[str, ViewOptions],
    background: BackgroundOptions,
    statistics: NormaliseOptions,
    looks: list[ViewOptions],
) -> _Plan:
    """What a batch is made with."""
    context = source.context
    decide, inputs = decider(source, views, background)
    scale = 1 / (255 * np.array(statistics.std))
    shift = -np.array(statistics.mean) / statistics.std
    match = list(views).index(background.matches) if background.kind == "swaps" else 0
    made = [(name, options.photometric) for name, options in views.items()]
    if background.uses_tiles:
        full = background.donor == "full"
        made += [(f"donors/{n}", look.photometric if full else None) for n, look in enumerate(looks)]

    def numbers(iteration: int, *columns: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        plan: Decisions = decide(iteration, *columns)
        rows = np.zeros((len(plan.windows), len(made), kernels.LENGTH), np.float32)
        rows[:, :, kernels.WINDOW : kernels.COLOURED] = plan.windows
        rows[:, :, kernels.SCALE : kernels.REPLACED] = [*scale, *shift]
        for number, (name, options) in enumerate(made):
            if options is not None:
                _fill_look(rows[:, number], options, context.generator(name, iteration))
        if background.kind == "none":
            return (rows,)
        count = len(views)
        rows[:, :count, kernels.REPLACED] = plan.replace
        rows[:, :count, kernels.BOX] = background.distortion.box
        if background.distortion.any:
            rows[:, :count, kernels.AFFINE :] = plan.distortion.reshape(len(rows), count, -1)
        if background.kind == "rm":
            for number, name in enumerate(views):
                rng = context.generator(f"{name}/background", iteration)
                rows[:, number, kernels.GREY] = draw_grey(background.grey, len(rows), rng)
        if background.kind == "swaps":  # a negative's mask is that of the view it matches
            matched = np.repeat(rows[:, [match]], background.negatives, axis=1)
            matched[:, :, kernels.REPLACED] = plan.matched
            rows = np.concatenate([rows, matched], axis=1)
        flags = np.concatenate([plan.replace, plan.matched, plan.used], axis=1)
        return rows, flags, plan.donor

    if background.kind == "none":
        [rows] = context.of_batch(numbers, *inputs, outputs=1)
        replaced = constant(np.zeros(len(views)), bool, "cpu")
        return _Plan(rows, replaced, [], [], None)
    rows, flags, donor = context.of_batch(numbers, *inputs, outputs=3)
    negatives = background.negatives if background.kind == "swaps" else 0
    flag = [flags[len(views) + number] for number in range(negatives + len(made) - len(views))]
    return _Plan(
        rows=rows,
        replaced=flags[0 : len(views)],
        matched=flag[:negatives],
        used=flag[negatives:],
        donor=donor,
    )


def _fill_look(rows: np.ndarray, options: PhotometricOptions, rng: np.random.Generator) -> None:
    """Draw a look for each photo into its row: float32 [N, LENGTH]."""
    look, count = draw_look(options, len(rows), rng), len(rows)
    rows[:, kernels.COLOURED], rows[:, kernels.BLURRED] = look.coloured, look.blurred
    rows[:, kernels.MATRIX : kernels.OFFSET] = look.matrix.reshape(count, 9)
    rows[:, kernels.OFFSET : kernels.BLURRED] = look.offset.reshape(count, 9)
    rows[:, kernels.SIGMA], rows[:, kernels.SOLARIZED] = look.sigma, look.solarized
