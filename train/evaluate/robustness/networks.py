"""Networks to be evaluated: a run's classifier, its own or one fitted now; torchvision's from a file."""

import re
from collections import OrderedDict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from dali_bgaug.errors import UserError, some
from dali_bgaug.files import digest, sha256
from dali_bgaug.views.options import NormaliseOptions
from train import checkpoint
from train.evaluate.backbone import load_backbone
from train.evaluate.classifier import load_classifier
from train.evaluate.fast import fit_fast
from train.evaluate.robustness.imagenet import WNIDS
from train.evaluate.robustness.protocol import EvaluatedNetwork
from train.export import find_checkpoint, hash_weights, load_weights
from train.features import Runtime, evaluation_config, open_set
from train.foreign import counters, describe, find_state_dict, without_module
from train.methods.probe import Pretraining, ProbeOptions


def load_run_classifier(path: Path) -> EvaluatedNetwork:
    """The classifier of a run: a linear probe, a fine-tuned or supervised network; every rank must call this.

    Args:
        path: the run's folder or a checkpoint.

    Raises:
        UserError: see `classifier.load_classifier`.
    """
    path = find_checkpoint(path)
    loaded = load_classifier(path)
    config, method = loaded.config, loaded.config.method
    if isinstance(method, ProbeOptions):
        training = "linear" if method.freeze else "finetune"
        pretraining, recipe = method.pretraining, method.recipe
    else:
        training, pretraining, recipe = method.name, loaded.pretraining, None
    view = next(iter(config.data.views.values()))
    return EvaluatedNetwork(
        name=f"{recipe or _kind(training, pretraining)} {_place(path)}",
        network=loaded.network,
        classes=loaded.network.classes,
        size=view.crop.size,
        normalise=config.data.normalise,
        sha256=hash_weights(loaded.network.state_dict()),
        record={
            **{"backbone": config.backbone, "backbone_sha256": loaded.sha256},
            **{"method": method.name, "training": training, "bn": loaded.bn, "recipe": recipe},
            **{"epochs": config.epochs, "seed": config.seed},
            **{"init": None if config.init is None else str(config.init)},
            "pretraining": pretraining.model_dump(),
        },
    )


def fit_run_classifier(
    path: Path, train: Path, runtime: Runtime, device: torch.device, untrained: bool = False
) -> EvaluatedNetwork:
    """The frozen backbone of a run with a linear classifier, fitted as by `linear --fast`; every rank must
    call this.

    Args:
        path: a run's folder, a checkpoint, or exported weights.
        train: labelled photos to fit on.
        runtime: how these are read.
        device: to extract features on.
        untrained: the weights the run started from.

    Raises:
        UserError: see `backbone.load_backbone`; photos that cannot be fitted on.
    """
    backbone = load_backbone(path, untrained)
    data = evaluation_config(backbone.config.data, train, runtime=runtime)
    photos = open_set(train, "--train")
    fast = fit_fast(backbone, data, device, option="--train")
    place = "/".join(path.absolute().parts[-2:])
    network = nn.Sequential(fast.backbone.cpu(), fast.fitted.heads.layer(fast.fitted.best))
    return EvaluatedNetwork(
        name=f"fast_{_kind('linear', backbone.pretraining)} {place}",
        network=network.eval(),
        classes=photos.classes,
        size=data.views["image"].crop.size,
        normalise=data.normalise,
        sha256=digest(backbone.sha256, photos.digest),  # a GPU does not fit to the last bit again
        record={
            **{"backbone": backbone.config.backbone, "backbone_sha256": backbone.sha256},
            **{"method": "fast", "training": "linear", "bn": "eval", "untrained": untrained},
            **{"classifier": fast.result, "pretraining": backbone.pretraining.model_dump()},
        },
    )


def _kind(training: str, pretraining: Pretraining) -> str:
    """What trained a classifier, in words like a recipe's: `linear_moco_v2_swaps`, `supervised_rm`."""
    method = None if pretraining.method == training else pretraining.method
    return "_".join(word for word in (training, method, pretraining.background) if word)


def _place(checkpoint: Path) -> str:
    """The last two folders of a run's path, which say more than `linear` alone."""
    folder = checkpoint.absolute().parent
    return "/".join((folder.parent if folder.name == "checkpoints" else folder).parts[-2:])


# ---------------------------------------------------------------- torchvision's

_OWN_INPUT = ("inception_v3", "googlenet")
"""Turn ImageNet's normalisation into their own; their auxiliary classifiers are in files or not."""


def load_torchvision(name: str, weights: Path, classes: Path | None = None) -> EvaluatedNetwork:
    """A classification network of `torchvision.models` with weights from a file.

    Nothing is downloaded. A file of torchvision's own is known by its hash, which its name in their list
    begins with: then the record says which weights they are, and their size of crop is taken. Of others it is
    that of the network's first weights: 224 pixels, 299 for inception_v3. Normalisation is ImageNet's.

    Args:
        name: as torchvision has it, e.g. resnet50.
        weights: a state_dict, or a file that has one.
        classes: a name a line, in order of logits; by default ImageNet's 1000 wnids, sorted.

    Raises:
        UserError: no such network; weights that are not exactly its own; classes that are not as many as
            logits.
    """
    names = models.list_models(module=models)
    if name not in names:
        near = get_close_matches(name, names, 5)
        there = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise UserError(f"--torchvision={name}: torchvision has no such classification network; {there}")
    state = checkpoint.read(weights)
    tensors = find_state_dict(state)
    if tensors is None:
        raise UserError(f"--weights={weights}: {describe(state)}")
    tensors = without_module(tensors)
    if name.startswith("densenet"):  # torchvision's files have names of before 2018
        tensors = {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key): v for key, v in tensors.items()}
    digest = sha256(weights)
    entries = list(models.get_model_weights(name))
    known = next((entry for entry in entries if digest.startswith(_beginning(entry.url))), None)
    size = (known or entries[0]).transforms.keywords["crop_size"]
    network = _build(name, tensors, size)
    own = network.state_dict()
    complete = OrderedDict(counters(own) | tensors)
    complete._metadata = own._metadata  # names and shapes are today's, so its versions are
    load_weights(network, complete, f"--weights={weights} as a {name}")
    class_names = _classes_of(classes, len(own[_last(own)]), weights)
    return EvaluatedNetwork(
        name=f"torchvision {name} {known.name if known else weights.name}",
        network=network.eval(),
        classes=class_names,
        size=size,
        normalise=NormaliseOptions(),
        sha256=hash_weights(complete),
        record={
            **{"backbone": name, "method": "torchvision", "file": weights.name, "file_sha256": digest},
            **_provenance(known, entries),
        },
    )


def _beginning(url: str) -> str:
    """The beginning of a file's SHA-256 that torchvision's name of it says: NAME-0676ba61.pth."""
    return url.rpartition("-")[2].removesuffix(".pth")


def _build(name: str, tensors: dict[str, torch.Tensor], size: int) -> nn.Module:
    """The network, with as many logits as the weights have."""
    options: dict[str, Any] = {}
    if name in _OWN_INPUT:
        auxiliary = any(key.lower().startswith("aux") for key in tensors)
        options = {"transform_input": True, "init_weights": False, "aux_logits": auxiliary}
    if name.startswith("vit_"):
        options = {"image_size": size}
    network = models.get_model(name, weights=None, **options)
    own = network.state_dict()
    last = tensors.get(_last(own))
    if last is not None and last.ndim and len(last) != len(own[_last(own)]):
        network = models.get_model(name, weights=None, num_classes=len(last), **options)
    return network


def _last(state: dict[str, torch.Tensor]) -> str:
    """The name of the classifier's last parameter: as long as there are classes."""
    return next(reversed(state))


def _provenance(known: Any, entries: list[Any]) -> dict[str, Any]:
    """Which of torchvision's weights they are, and what photos those were tested with."""
    if known is None:
        names = " or ".join(entry.name for entry in entries)
        return {
            "weights": None,
            "note": f"{names} cannot be told from a state dict; the file is none of these",
        }
    made_for = known.transforms()
    return {
        "weights": f"{type(known).__name__}.{known.name}",
        "made_for": {
            "resize": made_for.resize_size[0],
            "crop": made_for.crop_size[0],
            "interpolation": made_for.interpolation.value,
            "mean": list(made_for.mean),
            "std": list(made_for.std),
        },
    }


def _classes_of(path: Path | None, logits: int, weights: Path) -> list[str]:
    """The names of a network's classes."""
    if path is None:
        if logits != len(WNIDS):
            raise UserError(
                f"--weights={weights}: has {logits} classes, not ImageNet's {len(WNIDS)}; name them with "
                "--classes=FILE, one a line"
            )
        return list(WNIDS)
    if not path.is_file():
        raise UserError(f"--classes={path}: no such file; give one with the name of a class in each line")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) != logits:
        raise UserError(f"--classes={path}: names {len(names)} classes, {weights} has {logits}; give its own")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--classes={path}: named more than once: {some(twice)}; each class has one name")
    return names
