"""MoCo-v2's query and key and, with BG_Swaps, extra negatives that share the query's background.

A negative is n = m r + (1 - m) q with probability p_neg, else n = r: q the query (or the key, `matches`) as
the encoder sees it, m its foreground mask, r a random image: the *key of another photo of the batch*, which
has a crop, a flip and a photometric draw of its own already, and costs a copy instead of one more view.
"""

from functools import partial

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

from dali_bgaug.graph.read import Source
from dali_bgaug.graph.views import make_views
from pipelines.config import LoaderConfig

DEFAULTS = {"views": {"query": {}, "key": {}}}


def check(config: LoaderConfig) -> None:
    """Refuse what cannot be done."""
    if config.background.kind != "swaps":
        return
    query, key = config.views["query"], config.views["key"]
    if query.crop.size != key.crop.size:
        raise ValueError(
            f"background.kind=swaps: query ({query.crop.size} pixels) and key ({key.crop.size}) must have "
            "one size, a negative is made of both"
        )
    if config.background.coupled and not key.background:
        raise ValueError(
            "background.coupled=true: negatives follow the key's background, views.key.background is false"
        )


def graph(source: Source, config: LoaderConfig) -> dict[str, DataNode]:
    """query, key, and for swaps negative (negative_0, … if there are several): [size, size, 3]."""
    options = config.background
    swaps = options.kind == "swaps"
    half = config.half and not swaps  # DALI composites no float16
    views = make_views(source, config.views, options, config.normalise, half)
    outputs = views.outputs()
    if not swaps:
        return outputs
    others, made = _others(source, options.negatives), [*config.views]
    for number in range(options.negatives):
        name = "negative" if options.negatives == 1 else f"negative_{number}"
        outputs[name] = views.match(number, outputs["key"], others[number])
        made.append(name)
    if config.half:
        outputs |= {name: fn.cast(outputs[name], dtype=types.FLOAT16) for name in made}
    return outputs


@do_not_convert
def _others(source: Source, negatives: int) -> list[DataNode]:
    """For every photo so many other photos of the batch, all different where there are enough."""
    size = source.context.batch_size
    return source.context.draw("negatives", partial(_draw_others, size, negatives))


def _draw_others(size: int, negatives: int, rng: np.random.Generator, _: int) -> list[np.ndarray]:
    # A common order of the batch, in which each photo takes those some places further on.
    place = rng.permutation(size)
    steps = 1 + (rng.permutation(size - 1)[np.arange(negatives) % (size - 1)] if size > 1 else np.zeros(1))
    order = np.argsort(place)
    return [order[(place + int(step)) % size].astype(np.int32) for step in steps]
