"""MoCo-v2's query and key and, with BG_Swaps, extra negatives that share the query's background.

What a negative is made of: `dali_bgaug.views.plan`.
"""

from pipelines.config import LoaderConfig

DEFAULTS = {"views": {"query": {}, "key": {}}}
"""query, key, and for swaps negative (negative_0, … if there are several): normalised [N, 3, size, size]."""


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
