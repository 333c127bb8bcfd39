"""The views of a photo: which window, which look, which background. What every method's graph is made of.

`plan.py` decides it all in numbers. On a GPU DALI's operators carry it out (`operators.py`), on the CPU
compiled kernels do (`compiled.py`). Order of a view: crop and flip, jitter, grayscale, blur, solarize,
background, normalise; with `background.stage: before` the background comes right after the crop.

A view with no foreground in its window keeps its background, whatever the coin says: replacing it would
replace everything, a positive pair would share nothing, and a matched negative would be the query itself.
"""

from collections.abc import Callable

from nvidia.dali.pipeline import do_not_convert

from dali_bgaug.graph import operators
from dali_bgaug.graph.background import BackgroundOptions
from dali_bgaug.graph.crop import NormaliseOptions
from dali_bgaug.graph.outputs import Views
from dali_bgaug.graph.plan import ViewOptions, expand
from dali_bgaug.graph.read import Source


def make_views(
    source: Source,
    kinds: dict[str, ViewOptions],
    background: BackgroundOptions,
    normalise: NormaliseOptions,
    half: bool = False,
) -> Views:
    """Define the views of a batch.

    Args:
        source: what the graph starts from.
        kinds: the views.
        background: which backgrounds they get.
        normalise: what a view ends with.
        half: float16 views; not if negatives are still to be made of them, or if they are turned.
    """
    return _maker(source, background)(source, expand(kinds), background, normalise, half)


@do_not_convert
def _maker(source: Source, background: BackgroundOptions) -> Callable[..., Views]:
    # A background before the other augmentations is RotNet's default alone: it stays with the operators.
    if not source.context.compiled or (background.stage == "before" and background.kind != "none"):
        return operators.make
    from dali_bgaug.graph import compiled  # a GPU needs no Numba

    return compiled.make
