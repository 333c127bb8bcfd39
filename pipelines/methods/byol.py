"""BYOL's two views, which are not alike: the first is always blurred, the second seldom, but solarized.

Grill et al. 2020, appendix B; with the crop scale of the background augmentation paper.
"""

from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.read import Source
from dali_bgaug.graph.views import make_views
from pipelines.config import LoaderConfig

DEFAULTS = {
    "crop": {"scale": [0.2, 1.0]},
    "photometric": {"saturation": 0.2},
    "views": {
        "view_1": {"photometric": {"blur_p": 1.0}},
        "view_2": {"photometric": {"blur_p": 0.1, "solarize_p": 0.2}},
    },
}


def graph(source: Source, config: LoaderConfig) -> dict[str, DataNode]:
    """view_1, view_2: normalised [size, size, 3]."""
    return make_views(source, config.views, config.background, config.normalise, config.half).outputs()
