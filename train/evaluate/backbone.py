"""The backbone of a run, as it is or as the run started."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dali_bgaug.config import validate
from train.config import RunConfig
from train.export import load_weights, read_backbone
from train.method import Setting
from train.networks import build_backbone


class Loaded(NamedTuple):
    """A backbone that is ready to be evaluated."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    config: dict[str, Any]
    """Of the run it comes from."""
    sha256: str
    """Of its weights."""


def load_backbone(path: Path, untrained: bool = False) -> Loaded:
    """A backbone in evaluation mode.

    Args:
        path: a run's folder, a checkpoint, or exported weights with their card beside them.
        untrained: the weights the run started from, drawn again.

    Raises:
        UserError: no such file, or its weights are not exactly those of its architecture.
    """
    weights, config = stored = read_backbone(path)
    if untrained:
        network = initial_backbone(validate(RunConfig, config, f"{path}: config"))
        return Loaded(network.eval(), config, f"untrained {stored.sha256}")
    network = build_backbone(config["backbone"])
    load_weights(network, weights, f"{path} as a {config['backbone']}")
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
