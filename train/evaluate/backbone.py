"""The backbone of a run, as it is or as the run started."""

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from train.config import RunConfig
from train.export import load_weights, read_backbone
from train.method import Setting
from train.networks import build_backbone


class Loaded(NamedTuple):
    """A backbone, or a classifier, that is ready to be evaluated."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    config: RunConfig
    """Config of the run it comes from."""
    sha256: str
    """SHA-256 of its weights."""

    @property
    def bn(self) -> str:
        """The mode, `train` or `eval`, of batch norm in the backbone while a classifier was trained."""
        return getattr(self.config.method, "backbone_bn", "train")


def load_backbone(path: Path, untrained: bool = False) -> Loaded:
    """A backbone in evaluation mode.

    Args:
        path: a run's folder, a checkpoint, or exported weights with their card beside them.
        untrained: the weights the run started from, drawn again.

    Raises:
        UserError: no such file, or its weights are not exactly those of its architecture.
    """
    stored = read_backbone(path)
    config = RunConfig.stored(stored.config, f"{path}: config")
    if untrained:
        return Loaded(initial_backbone(config).eval(), config, f"untrained {stored.sha256}")
    network = build_backbone(config.backbone)
    load_weights(network, stored.weights, f"{path} as a {config.backbone}")
    return Loaded(network.eval(), config, stored.sha256)


def initial_backbone(config: RunConfig) -> nn.Module:
    """The backbone a run of this config starts with: that of `init`, or drawn from its seed."""
    if config.init is not None:
        network = build_backbone(config.backbone)
        load_weights(network, read_backbone(config.init).weights, f"init={config.init}")
        return network
    torch.manual_seed(config.seed)
    views = tuple(config.data.single_views)
    # Neither batch-norm groups nor the classifier, which comes after it, change what is drawn for the
    # backbone.
    setting = Setting(config.backbone, photos=config.method.bn_group or 2, views=views, classes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return config.method.build(setting).backbone
