"""Linear probes and fine-tuning by a recipe, as runs of the training loop: distributed, resumed, watched."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from dali_bgaug.config import merge, read_yaml, validate
from dali_bgaug.errors import UserError
from train import distributed
from train.config import RunConfig
from train.evaluate.backbone import RUNS, Loaded
from train.evaluate.classifier import count_right, load_classifier, shares
from train.features import Runtime, evaluation_config, evaluation_values, ready, same_classes, set_record
from train.loop import Loop
from train.methods.probe import ProbeOptions
from train.signals import StopRequest

RECIPES = RUNS / "evaluate"
TRANSFER = ("linear_cifar10", "linear_cifar100", "linear_places205")
"""Recipes of linear probes on other data sets, for backbones of all methods."""


class ProbeJob(NamedTuple):
    """A linear probe, or fine-tuning, of a checkpoint."""

    config: RunConfig
    """The run, of `probe_config`."""
    test: Path
    """Shards, or class folders, to test on."""
    out: Path


def recipe_of(protocol: str, method: str, percent: int | None = None) -> Path:
    """The recipe for backbones of a method; percent: of the labels, for fine-tuning."""
    wanted = RECIPES / f"{protocol}_{method}{f'_{percent}percent' if percent else ''}.yaml"
    if not wanted.is_file():
        there = ", ".join(sorted(path.stem for path in RECIPES.glob(f"{protocol}_*.yaml")))
        raise UserError(
            f"no recipe {wanted.stem} for a backbone trained by {method}; choose one with --recipe "
            f"(configs/evaluate/ has {there})"
        )
    return wanted


def bn_of(recipe: Path) -> str:
    """The mode, `train` or `eval`, of batch norm in the backbone by a recipe."""
    default = ProbeOptions.model_fields["backbone_bn"].default
    return read_yaml(recipe).get("method", {}).get("backbone_bn", default)


def probe_config(
    backbone: Loaded, checkpoint: Path, data: Path, recipe: Path, given: dict[str, Any]
) -> RunConfig:
    """The run: the backbone's architecture, size and normalisation, under the recipe's and the given values.

    Args:
        backbone: of `checkpoint`.
        checkpoint: a run's folder, a checkpoint, or exported weights.
        data: shards to train on.
        recipe: of `configs/evaluate/`, or another.
        given: further values of a RunConfig.
    """
    shown = evaluation_values(backbone.config.data, data)
    filled = {
        "backbone": backbone.config.backbone,
        "method": {
            **{"name": "probe", "checkpoint": str(checkpoint), "weights": backbone.sha256},
            **{"pretraining": backbone.pretraining.model_dump(), "recipe": recipe.stem},
        },
        "data": {"pipeline": "supervised", **{key: shown[key] for key in ("shards", "crop", "normalise")}},
    }
    config = validate(RunConfig, merge(merge(filled, read_yaml(recipe)), given), str(recipe))
    if config.method.freeze and config.optim.backbone_lr is not None:
        raise UserError(
            f"optim.backbone_lr={config.optim.backbone_lr}: the backbone is frozen (method.freeze=true); "
            "leave it out"
        )
    return config


def run_probe(job: ProbeJob, device: torch.device, stop: StopRequest) -> dict[str, Any] | None:
    """Train (or go on from the run's last checkpoint), then test; every rank must call this.

    Returns:
        The result; None if a signal ended training before its time.
    """
    config = job.config
    same_classes({"--data": config.data.shards, "--test": job.test})
    with stop.listening(), Loop(config, job.out, "auto", device, stop) as loop:
        if not loop.run():
            return None
        photos = loop.trainer.data["photos"]
    distributed.limit_waiting(distributed.START.total_seconds())  # testing, ranks meet at the end only
    distributed.barrier()  # the last checkpoint is written
    trained = load_classifier(job.out)  # with the first rank's batch-norm statistics, as others will
    data = evaluation_config(config.data, job.test, runtime=Runtime.of(config.data))
    right, tested = count_right(ready(trained.network, device), data, device, "test")
    backbone_lr = 0 if config.method.freeze else config.optim.backbone_lr or config.optim.lr
    return {
        **shares(right, tested),
        "bn": trained.bn,
        **{"backbone": config.backbone, "weights": config.method.weights},
        **{"recipe": config.method.recipe, "epochs": config.epochs, "batch_size": config.data.batch_size},
        **{"lr": config.optim.lr, "backbone_lr": backbone_lr},
        "data": {"shards": str(config.data.shards), "photos": photos},
        "test": set_record(job.test, tested),
        **{"size": data.views["image"].crop.size, "resize": data.resize},
        "seed": config.seed,
        "pretraining": config.method.pretraining.model_dump(),
    }
