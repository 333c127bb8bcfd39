"""The trunk of a detector: a backbone of ours, with its weights."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from dali_bgaug.errors import UserError
from dali_bgaug.views.options import NormaliseOptions
from train.export import load_weights, read_backbone
from train.networks import build_backbone


class Trunk(NamedTuple):
    """A backbone, and what it was trained with."""

    network: nn.Module
    mean: tuple[float, ...]
    """Of photos in [0, 1], by channel, that its input is normalised by."""
    std: tuple[float, ...]
    sha256: str
    """Hash of the weights; "random" without."""


def load_trunk(name: str, init: Path | None) -> Trunk:
    """The backbone of a run, a checkpoint or an export, all its weights and no others; every rank must call
    this. Without `init`, random weights.

    Raises:
        UserError: no such file, none of these, or of another backbone; names that are missing or unknown.
    """
    network = build_backbone(name)
    if init is None:
        normalise = NormaliseOptions()
        return Trunk(network, normalise.mean, normalise.std, "random")
    stored = read_backbone(init)
    found = stored.config["backbone"]
    if found != name:
        raise UserError(f"init={init}: weights of backbone={found}; take backbone={found}, or other weights")
    load_weights(network, stored.weights, f"init={init}")
    values = stored.config["data"]["normalise"]
    return Trunk(network, tuple(values["mean"]), tuple(values["std"]), stored.sha256)
