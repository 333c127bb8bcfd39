"""RotNet: the four rotations of one view, whose background was replaced before its crop.

Gidaris, Singh, Komodakis 2018.
"""

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.read import Source
from dali_bgaug.graph.views import make_views
from pipelines.config import LoaderConfig

DEFAULTS = {
    "crop": {"scale": [0.08, 1.0]},
    "photometric": {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0},
    "views": {"image": {}},
    "background": {"stage": "before", "donor": "none"},
}


def graph(source: Source, config: LoaderConfig) -> dict[str, DataNode]:
    """image: normalised [4, size, size, 3], turned counter-clockwise by 0, 90, 180 and 270 degrees."""
    outputs = make_views(source, config.views, config.background, config.normalise).outputs()
    upright = outputs["image"]
    turned = fn.transpose(upright, perm=[1, 0, 2], transpose_layout=False)
    rotations = [
        upright,
        fn.flip(turned, horizontal=0, vertical=1),
        fn.flip(upright, horizontal=1, vertical=1),
        fn.flip(turned, horizontal=1, vertical=0),
    ]
    image = fn.stack(*rotations)
    outputs["image"] = fn.cast(image, dtype=types.FLOAT16) if config.half else image  # DALI flips no float16
    return outputs
