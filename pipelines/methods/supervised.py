"""One cropped and flipped view with its label: supervised training, linear probes, fine-tuning."""

from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.read import Source
from dali_bgaug.graph.views import make_views
from pipelines.config import LoaderConfig

DEFAULTS = {
    "crop": {"scale": [0.08, 1.0]},
    "photometric": {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0},
    "views": {"image": {}},
}


def graph(source: Source, config: LoaderConfig) -> dict[str, DataNode]:
    """image: normalised [size, size, 3]."""
    return make_views(source, config.views, config.background, config.normalise, config.half).outputs()
