"""The backbone of a run, as it is or as the run started, or of another project's file."""

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from dali_bgaug.config import merge, read_yaml, validate
from train import checkpoint
from train.config import RunConfig
from train.export import hash_weights, load_weights, read_backbone
from train.foreign import SOURCES, take_backbone
from train.method import Setting
from train.methods.probe import Pretraining
from train.networks import build_backbone

RUNS = Path(__file__).parents[2] / "configs"
"""Recipes of pre-training."""


class Loaded(NamedTuple):
    """A backbone, or a classifier, that is ready to be evaluated."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    config: RunConfig
    """Config of the run it comes from."""
    sha256: str
    """SHA-256 of its weights."""
    source: str | None = None
    """Another project, of `foreign.SOURCES`, whose file it is in; the config is of a run like theirs then."""

    @property
    def bn(self) -> str:
        """The mode, `train` or `eval`, of batch norm in the backbone while a classifier was trained."""
        return getattr(self.config.method, "backbone_bn", "train")

    @property
    def pretraining(self) -> Pretraining:
        """The run of a backbone, as results have it."""
        if self.source is not None:
            return Pretraining(source=self.source, method=SOURCES[self.source].method)
        config, background = self.config, self.config.data.background
        return Pretraining(
            method=config.method.name,
            background=background.kind,
            p_pos=None if background.kind == "none" else background.p_pos,
            epochs=config.epochs,
            seed=config.seed,
            init=None if config.init is None else str(config.init),
        )


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


def load_foreign(path: Path, source: str, backbone: str) -> Loaded:
    """A backbone in evaluation mode out of another project's file.

    Args:
        path: the file.
        source: the project, of `foreign.SOURCES`.
        backbone: its architecture.

    Raises:
        UserError: no such backbone in it, or weights that have no place in such a file; lists them.
    """
    known = SOURCES[source]
    recipe = RUNS / f"{known.recipe}.yaml"
    given = {"backbone": backbone, "data": {"normalise": known.normalise.model_dump()}}
    config = validate(RunConfig, merge(read_yaml(recipe), given), f"--backbone={backbone} with {recipe}")
    weights = take_backbone(checkpoint.read(path), backbone, path, source=source)
    network = build_backbone(backbone)
    load_weights(network, weights, f"{path} as a {backbone} of --from={source}")
    return Loaded(network.eval(), config, hash_weights(weights), source)


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
