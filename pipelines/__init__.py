"""One loader per method, assembled from the pieces of `dali_bgaug`.

    from pipelines import LoaderConfig, build_loader

    config              what a loader reads and how (LoaderConfig)
    build               config -> reader, recipe and renderer -> loader
    methods             which views each method takes; a new method is one entry there
    torchvision_loader  reference implementation, for correctness and speed: the same with torchvision
    torchvision_views   its views of one photo

What pixels go through is in `dali_bgaug.views`; training is in `train`.
"""

from dali_bgaug.dataset import open_data
from pipelines.build import build_loader
from pipelines.config import LoaderConfig

__all__ = ["LoaderConfig", "build_loader", "open_data"]
