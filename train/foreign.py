"""Weights of other projects: the backbone in a file that torch.save wrote, MoCo's, SwAV's or torchvision's.

Such a file is a state_dict, or has one under `state_dict` or `model`; names in it have the prefixes of what
the network was part of (`module.encoder_q.`), and there are other weights beside (projection, classifier).
"""

import re
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.errors import UserError
from train.drn import DRNS
from train.networks import build_backbone

_PLACES = ("state_dict", "model", "model_state_dict", "network")


def find_state_dict(state: Any) -> dict[str, torch.Tensor] | None:
    """The state_dict in what a file holds, if there is one."""
    for candidate in (state, *(state.get(place) for place in _PLACES)):
        if isinstance(candidate, dict) and candidate:
            tensors = {name: value for name, value in candidate.items() if isinstance(value, torch.Tensor)}
            if len(tensors) == len(candidate) and all(isinstance(name, str) for name in tensors):
                return tensors
    return None


def describe(state: dict[str, Any]) -> str:
    """A description of a file that is no checkpoint of ours, and what to do with it."""
    tensors = find_state_dict(state)
    if tensors is None:
        return f"it holds {', '.join(map(repr, list(state)[:5]))}; give another file"
    return (
        f"it holds {len(tensors)} weights of another project ({', '.join(list(tensors)[:2])}, …); `python -m "
        "train.import_weights FILE --config RECIPE` takes a backbone out of them"
    )


def take_backbone(
    state: dict[str, Any], backbone: str, path: Path, prefix: str | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a backbone, by its own names.

    Args:
        state: what the file holds.
        backbone: which network, a name of `networks.FEATURES`.
        path: the file, for errors.
        prefix: of its names in the file; None finds it.

    Raises:
        UserError: no state_dict, no such backbone in it, or several.
    """
    tensors = find_state_dict(state)
    if tensors is None:
        raise UserError(f"{path}: {describe(state)}")
    if backbone in DRNS:  # files of the authors' segmentation networks
        tensors = {
            re.sub(r"(^|\.)base\.(\d)\.", r"\1layer\2.", name): value for name, value in tensors.items()
        }
    own = build_backbone(backbone).state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # old files have none
    first = next(iter(own))
    prefixes = sorted(name.removesuffix(first) for name in tensors if name.endswith(first))
    whole = [
        start
        for start in prefixes
        if prefix in (None, start)
        and all(
            start + name in tensors and tensors[start + name].shape == own[name].shape
            for name in set(own) - counters
        )
    ]
    if len(whole) != 1:
        several = f"under {' and '.join(map(repr, whole))}; give one with --prefix"
        found = several if whole else "nowhere in it"
        raise UserError(
            f"{path}: the weights of a {backbone} are {found} (names like {', '.join(list(tensors)[:3])})"
        )
    return {name: tensors.get(whole[0] + name, own[name]).detach().contiguous() for name in own}
