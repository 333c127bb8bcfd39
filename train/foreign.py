"""Weights of other projects: the backbone in a file of torch.save or safetensors, MoCo's, SwAV's or timm's.

Such a file is a state_dict, or has one under `state_dict` or `model`; names in it have the prefixes of what
the network was part of (`module.encoder_q.`), and there are other weights beside (projection, classifier).
SOURCES knows the files of some projects by name, and then every weight in them is accounted for.
"""

import re
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.errors import UserError, some
from dali_bgaug.views.options import NormaliseOptions
from train.drn import DRNS
from train.networks import build_backbone

_PLACES = ("state_dict", "model", "model_state_dict", "network")


@dataclass(frozen=True)
class Source:
    """A project whose files hold pre-trained backbones."""

    recipe: str
    """Of `configs/`: the run that a backbone of it counts as, and so the recipes of its evaluations."""
    method: str | None
    """That its backbones were trained by; None: not one for all of them."""
    prefixes: tuple[str, ...]
    """Of the backbone's names, the first that there is. `module.` before every name is left out."""
    dropped: tuple[str, ...]
    """Beginnings of the other names that belong in such a file."""
    place: str = ""
    """Keys of the file that lead to its weights, with dots between; or they are where others have them."""
    normalise: NormaliseOptions = field(default_factory=NormaliseOptions)
    """Of its input."""


SOURCES = {
    # `main_moco.py` of He et al. 2020, and v2: two encoders whose `fc` is the projection, and the queue.
    "moco": Source(
        recipe="moco_v2_full_none",
        method="moco_v2",
        prefixes=("encoder_q.",),
        dropped=("encoder_q.fc.", "encoder_k.", "queue"),
    ),
    # Caron et al. 2020, whose standard deviation of red is .228.
    "swav": Source(
        recipe="swav_full_none",
        method="swav",
        prefixes=("",),
        dropped=("projection_head.", "prototypes."),
        normalise=NormaliseOptions(std=(0.228, 0.224, 0.225)),
    ),
    # DeepMind's weights in PyTorch's names (the backbone and a classifier, or both networks and the
    # predictor), and lucidrains' byol-pytorch, which has the online backbone under `net`, too.
    "byol": Source(
        recipe="byol_full_none",
        method="byol",
        prefixes=("online_encoder.net.", "encoder_q.", ""),
        dropped=(
            *("fc.", "encoder_q.fc.", "encoder_k.", "predict_q."),
            *("net.", "online_encoder.net.fc.", "online_encoder.projector.", "online_predictor."),
            "target_encoder.",
        ),
    ),
    # The model zoo: many methods, whose heads are elsewhere in the file.
    "vissl": Source(
        recipe="swav_full_none",
        method=None,
        prefixes=("_feature_blocks.", "base_model._feature_blocks.", ""),
        dropped=("fc.",),
        place="classy_state_dict.base_model.model.trunk",
    ),
    # Names of ResNets are torchvision's.
    "timm": Source(recipe="supervised_full_none", method=None, prefixes=("",), dropped=("fc.",)),
}
"""By the name that `--from` gives."""


def find_state_dict(state: Any, place: str = "") -> dict[str, torch.Tensor] | None:
    """The state_dict in what a file holds, if there is one. place: where else it may be (`Source.place`)."""
    inner = reduce(
        lambda found, key: found.get(key) if isinstance(found, dict) else None, place.split("."), state
    )
    for candidate in (inner, state, *(state.get(name) for name in _PLACES)):
        if isinstance(candidate, dict) and candidate:
            tensors = {name: value for name, value in candidate.items() if isinstance(value, torch.Tensor)}
            if len(tensors) == len(candidate) and all(isinstance(name, str) for name in tensors):
                return tensors
    return None


def describe(state: dict[str, Any]) -> str:
    """A description of a file that is no checkpoint of ours, and what to do with it."""
    tensors = find_state_dict(state)
    if tensors is None:
        inside = ", ".join(map(repr, list(state)[:5])) or "nothing"
        fitting = [
            name for name, each in SOURCES.items() if each.place and find_state_dict(state, each.place)
        ]
        return f"it holds {inside}; {_remedy(fitting)}"
    return (
        f"it holds {len(tensors)} weights of another project ({', '.join(list(tensors)[:2])}, …); `python -m "
        "train.import_weights FILE --config RECIPE` takes a backbone out of them, and train.evaluate reads "
        f"them with --from, one of {', '.join(SOURCES)}"
    )


def without_module(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state_dict without the `module.` that DistributedDataParallel puts before every name."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def counters(own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The counts of batches of a new network, 0, by the names of its state_dict; files of before PyTorch
    counted have none."""
    names = (name for name in own if name.endswith("num_batches_tracked"))
    return {name: torch.tensor(0) for name in names}


def take_backbone(
    state: dict[str, Any],
    backbone: str,
    path: Path,
    *,
    source: str | None = None,
    prefix: str | None = None,
) -> dict[str, torch.Tensor]:
    """The weights of a backbone, by its own names.

    Args:
        state: what the file holds.
        backbone: which network, a name of `networks.FEATURES`.
        path: the file, for errors.
        source: whose file it is, of SOURCES; what does not belong in such a file is an error then, and what
            is missing is for `export.load_weights` to tell. None: anybody's; other weights are left in it.
        prefix: of the backbone's names in anybody's file; None finds it.

    Raises:
        UserError: no state_dict, no such backbone in it, or several, or weights that are none of a source's.
    """
    tensors = find_state_dict(state, SOURCES[source].place if source else "")
    if tensors is None:
        raise UserError(f"{path}: {describe(state)}")
    with torch.device("meta"):  # names and shapes are all that is asked for
        own = build_backbone(backbone).state_dict()
    if source is None:
        if backbone in DRNS:  # files of the authors' segmentation networks
            tensors = {
                re.sub(r"(^|\.)base\.(\d)\.", r"\1layer\2.", name): value for name, value in tensors.items()
            }
        start = _find_prefix(tensors, backbone, own, path, prefix)
    else:
        tensors = without_module(tensors)
        start = _known_prefix(tensors, backbone, own, path, source)
    kept = {name: tensors[start + name] for name in own if start + name in tensors}
    return {name: value.detach().contiguous() for name, value in (counters(own) | kept).items()}


def _find_prefix(
    tensors: dict[str, torch.Tensor],
    backbone: str,
    own: dict[str, torch.Tensor],
    path: Path,
    prefix: str | None,
) -> str:
    """The one prefix under which all of a backbone is."""
    first = next(iter(own))
    whole = [
        start
        for start in sorted(name.removesuffix(first) for name in tensors if name.endswith(first))
        if prefix in (None, start)
        and all(
            start + name in tensors and tensors[start + name].shape == own[name].shape
            for name in set(own) - set(counters(own))
        )
    ]
    if len(whole) != 1:
        several = f"under {' and '.join(map(repr, whole))}; give one with --prefix"
        found = several if whole else "nowhere in it"
        raise UserError(
            f"{path}: the weights of a {backbone} are {found} (names like {', '.join(list(tensors)[:3])})"
        )
    return whole[0]


def _known_prefix(
    tensors: dict[str, torch.Tensor], backbone: str, own: dict[str, torch.Tensor], path: Path, source: str
) -> str:
    """The prefix of a backbone's names in a source's file, where every other weight belongs there, too."""
    start, left = _fit(tensors, own, SOURCES[source])
    fits = {name: _fit(tensors, own, known) for name, known in SOURCES.items() if start is None or left}
    fitting = [name for name, (found, others) in fits.items() if found is not None and not others]
    if start is None:
        raise UserError(
            f"{path}: --from={source} has a {backbone} under "
            f"{' or '.join(map(repr, SOURCES[source].prefixes))}, names here are like "
            f"{', '.join(list(tensors)[:3])}; {_remedy(fitting)}"
        )
    if left:
        raise UserError(
            f"{path}: {len(left)} of its weights are no part of a {backbone} of --from={source}: "
            f"{some(left, 20)}; {_remedy(fitting)}"
        )
    return start


def _fit(
    tensors: dict[str, torch.Tensor], own: dict[str, torch.Tensor], source: Source
) -> tuple[str | None, list[str]]:
    """The prefix of a backbone's names, if there is one of a source's, and names that have no place in its
    files."""
    first = next(iter(own))
    start = next((start for start in source.prefixes if start + first in tensors), None)
    known = {f"{start}{name}" for name in own}
    return start, [name for name in tensors if name not in known and not name.startswith(source.dropped)]


def _remedy(fitting: list[str]) -> str:
    """What is to be done with a file: give it as one of the sources whose files are such."""
    return f"try --from={' or '.join(fitting)}" if fitting else "give another file, or another --backbone"
