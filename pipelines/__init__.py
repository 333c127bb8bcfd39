"""One DALI pipeline per method, assembled from the graph pieces of `dali_bgaug`.

    from pipelines import LoaderConfig, build_loader

    config               what a loader reads and how (LoaderConfig)
    build                config -> DALI pipeline -> loader
    methods/             which views a method takes; a new method is one file there
    torchvision_loader   the same job with torchvision: the yardstick for correctness and speed

What pixels go through is in `dali_bgaug.graph`; training is in `train`.
"""

from pipelines.build import build_loader, build_pipeline, open_data
from pipelines.config import LoaderConfig

__all__ = ["LoaderConfig", "build_loader", "build_pipeline", "open_data"]
