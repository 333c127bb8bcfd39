"""Formats of exported backbones, by the programs that load them.

    torchvision     a state_dict of torch.save: the backbone's own names, which of ResNets are torchvision's
    timm            the same, of networks that timm has
    safetensors     the backbone's own names
    detectron2      a pickle of NumPy arrays, by the names of detectron2's ResNets

Only the backbone's weights are written: no classifier, projection or queue.
"""

import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic
from train import checkpoint, safetensors

RESNETS = ("resnet18", "resnet50")
"""The backbones that have torchvision's names, structure and input, and are timm's and detectron2's, too."""
Write = Callable[[Path, dict[str, torch.Tensor], dict[str, str]], None]


def detectron2_name(name: str) -> str:
    """The name in detectron2's ResNets of a weight in torchvision's.

    As the converters of MoCo (`detection/convert-pretrain-to-detectron2.py`) and of detectron2
    (`tools/convert-torchvision-to-d2.py`) name it.
    """
    if not name.startswith("layer"):
        name = f"stem.{name}"
    name = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", name)
    name = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", name)
    return name.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")


class _Pickler(pickle.Pickler):
    """Pickles arrays so that every NumPy reads them.

    NumPy's own pickles name a module by where it lies, which NumPy 2 has moved: those before 1.26 do not
    find it.
    """

    def reducer_override(self, value: Any) -> Any:
        """How an array is made again: by np.ndarray from its bytes."""
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, bytearray(value.tobytes()))
        return NotImplemented


def _write_detectron2(path: Path, weights: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    model = {detectron2_name(name): value.numpy() for name, value in weights.items()}
    buffer = io.BytesIO()
    # Names end a detector's, which has them under `backbone.` and, of res5, `roi_heads.`; without the
    # heuristics detectron2 takes none of them, and says so in its log only.
    content = {"model": model, "__author__": "dali_bgaug", "matching_heuristics": True}
    _Pickler(buffer, protocol=4).dump(content)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _write_torch(path: Path, weights: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    checkpoint.save(path, weights)


@dataclass(frozen=True)
class ExportFormat:
    """A format of exported weights."""

    file: str
    """Name of the file in a run's folder."""
    write: Write
    """Of a path, a backbone's state_dict, and texts about it."""
    suffix: str | None = None
    """By which its readers tell such a file; None: any."""
    backbones: tuple[str, ...] | None = None
    """That the format has names for; None: all."""

    def check(self, name: str, backbone: str, out: Path) -> None:
        """Refuse, by UserError, what readers of the format would not load. name: the format's."""
        if self.backbones is not None and backbone not in self.backbones:
            raise UserError(
                f"--format={name}: {name} has no {backbone}, only {' and '.join(self.backbones)}; take "
                "--format=safetensors, or leave it out"
            )
        if self.suffix is not None and out.suffix != self.suffix:
            raise UserError(f"--out={out}: --format={name} is known by {self.suffix}; end the name in it")


FORMATS = {
    "torchvision": ExportFormat("backbone.pt", _write_torch),
    "timm": ExportFormat("backbone_timm.pt", _write_torch, backbones=RESNETS),
    "safetensors": ExportFormat("model.safetensors", safetensors.write, ".safetensors"),
    "detectron2": ExportFormat("backbone_detectron2.pkl", _write_detectron2, ".pkl", RESNETS),
}
"""By the name that `--format` gives."""
