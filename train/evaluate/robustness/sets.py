"""Protocols by the names of their sets, and the sets in a user's folder, recognised by their layouts.

A NAME that is none of these is a set of the user's own: class folders, or laid out as ImageNet-C.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dali_bgaug.errors import UserError
from train.evaluate.robustness.class_folders import (
    open_attacked,
    open_folders,
    open_imagenet_a,
    open_imagenet_r,
    open_imagenet_v2,
)
from train.evaluate.robustness.corrupted import is_corrupted, open_corrupted
from train.evaluate.robustness.cue_conflict import open_cue_conflict
from train.evaluate.robustness.objectnet import BORDER, open_objectnet
from train.evaluate.robustness.protocol import STANDARD_RESIZE, EvaluatedNetwork, RobustnessSet
from train.evaluate.robustness.real import open_real
from train.evaluate.robustness.source import Found, SetOptions, Source


class Protocol(NamedTuple):
    """How sets of a kind are opened and shown."""

    title: str
    """A line of what it is."""
    open: Callable[[Source], list[Found]] | None
    """None: it is no set of photos but has a function of its own."""
    resize: float | None = STANDARD_RESIZE
    border: int = 0


PROTOCOLS = {
    "real": Protocol("ImageNet's validation photos, with all labels that fit", open_real),
    "imagenet-v2": Protocol("ImageNet-v2: photos sampled anew", open_imagenet_v2),
    "objectnet": Protocol("ObjectNet: objects in unusual views", open_objectnet, resize=1.0, border=BORDER),
    "imagenet-a": Protocol("ImageNet-A: photos that a ResNet-50 gets wrong", open_imagenet_a),
    "imagenet-r": Protocol("ImageNet-R: renditions", open_imagenet_r),
    "imagenet-c": Protocol("ImageNet-C: corruptions", open_corrupted, resize=None),
    "fgsm": Protocol("photos attacked by the fast gradient sign method", open_attacked),
    "cue-conflict": Protocol("shape bias, on cue-conflict stimuli", open_cue_conflict),
    "imagenet-9": Protocol("ImageNet-9: backgrounds swapped (`background_gap`)", None),
    "folders": Protocol("class folders of one's own", open_folders),
}


_WITH_LABELS = ("real", "objectnet", "imagenet-9")


def protocol_of(name: str, folder: Path) -> str:
    """The protocol of a set: its name, if it is one's; else by the folder's layout.

    Raises:
        UserError: the name is a protocol's in another spelling; class folders would be measured in its place.
    """
    if name in PROTOCOLS:
        return name
    if meant := next((one for one in PROTOCOLS if _letters(one) == _letters(name)), None):
        raise UserError(f"--set {name}={folder}: the protocol is called {meant}; write it so")
    return "imagenet-c" if is_corrupted(folder) else "folders"


def _letters(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def open_set(
    name: str, folder: Path, network: EvaluatedNetwork, options: SetOptions | None = None
) -> list[RobustnessSet]:
    """The sets in a folder, usually one: ImageNet-v2's are up to three, `NAME/PART`, matched-frequency first.

    Raises:
        UserError: the folder is not laid out as the name says, is incomplete, or has classes that the network
            has not; it says which.
        ValueError: `imagenet-9`, which `background_gap` evaluates.
    """
    protocol = protocol_of(name, folder)
    opener, resize, border = PROTOCOLS[protocol][1:]
    if opener is None:
        raise ValueError(f"{protocol} is not evaluated as a set of photos")
    source = Source(name, folder, network, options or SetOptions())
    if (labels := source.options.labels) is not None and protocol not in _WITH_LABELS:
        raise source.fault(f"labels={labels}: only of {', '.join(_WITH_LABELS)}; leave them out")
    found = opener(source)
    return [
        RobustnessSet(
            name=name if len(found) == 1 else f"{name}/{one.part}",
            protocol=protocol,
            folder=one.folder,
            files=one.files,
            score=one.score,
            resize=resize,
            border=border,
            record=one.record | ({} if one.part is None else {"part": one.part}),
        )
        for one in found
    ]
