"""Detectors, one file each: photos in, saliency maps out (`base` says what that means).

base         the interface of a detector
imported     masks made elsewhere
rbd          no weights: border and contrast
mc           no weights: random walks to the border
dsr          no weights: what the border cannot reconstruct
hs           no weights: contrast of three layers of regions
fused        these four, and the random field
superpixels  what these four share
crf          refinement of any detector's maps by the random field
ncut         the project's own self-supervised backbones
u2net        U²-Net, from an .onnx file
deepusps     a network trained without labels, from an .onnx file
onnx         what these two share
"""

from importlib import import_module
from typing import Any

from dali_bgaug.config import override, validate
from dali_bgaug.errors import UserError
from tools.offline.detectors.base import Detector, DetectorOptions, Photo

DETECTORS = {
    "import": ("imported", "ImportOptions"),
    "u2net": ("u2net", "U2NetOptions"),
    "rbd": ("rbd", "RBDOptions"),
    "mc": ("mc", "MCOptions"),
    "dsr": ("dsr", "DSROptions"),
    "hs": ("hs", "HSOptions"),
    "fused": ("fused", "FusedOptions"),
    "ncut": ("ncut", "NCutOptions"),
    "deepusps": ("deepusps", "DeepUSPSOptions"),
}


def options_of(name: str) -> type[DetectorOptions]:
    """The model of a detector's options; UserError if there is no such detector."""
    if name not in DETECTORS:
        raise UserError(f"--detector={name}: there are {', '.join(DETECTORS)}")
    module, options = DETECTORS[name]
    # Only what is used is imported: ncut brings torch, rbd scikit-image.
    return getattr(import_module(f"{__name__}.{module}"), options)


def read_options(name: str, values: dict[str, Any], overrides: list[str]) -> DetectorOptions:
    """The options of the detector `name`, from values and, over them, `key=value` overrides.

    Raises:
        UserError: no such detector; an unknown, missing or bad option.
    """
    model = options_of(name)
    return validate(model, override({"name": name, **values}, overrides), f"--detector {name}")


__all__ = ["DETECTORS", "Detector", "DetectorOptions", "Photo", "options_of", "read_options"]
