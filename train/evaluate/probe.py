"""Linear probes and fine-tuning by a recipe, as runs of the training loop: distributed, resumed, watched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dali_bgaug.config import merge, override, read_yaml, validate
from dali_bgaug.errors import UserError
from train import distributed
from train.config import RunConfig
from train.evaluate.backbone import Loaded, load_backbone
from train.evaluate.classifier import count_right, load_classifier, shares
from train.evaluate.features import evaluation_data, ready, same_classes, same_reading, set_record
from train.loop import Run
from train.signals import StopRequest

RECIPES = Path(__file__).parents[2] / "configs" / "evaluate"


class ProbeJob(NamedTuple):
    """A linear probe, or fine-tuning, of a checkpoint."""

    checkpoint: Path
    data: Path
    """Shards to train on."""
    test: Path
    """Shards, or class folders, to test on."""
    out: Path
    recipe: Path
    """Of `configs/evaluate/`, or another."""
    words: Sequence[str] = ()
    """`key=value` of the run's config."""


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


def probe_config(job: ProbeJob, backbone: Loaded) -> RunConfig:
    """The run: the recipe's values, the backbone's architecture, size and normalisation, then the words."""
    trained = backbone.config["data"]
    filled = {
        "backbone": backbone.config["backbone"],
        "method": {"name": "probe", "checkpoint": str(job.checkpoint), "weights": backbone.sha256},
        "data": {
            "pipeline": "supervised",
            "shards": str(job.data),
            "crop": {"size": next(iter(trained["views"].values()))["crop"]["size"]},
            "normalise": trained["normalise"],
        },
    }
    values = override(merge(filled, read_yaml(job.recipe)), list(job.words))
    config = validate(RunConfig, values, str(job.recipe))
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
    same_classes({"--data": job.data, "--test": job.test})
    backbone = load_backbone(job.checkpoint)
    config = probe_config(job, backbone)
    with stop.listening(), Run(config, job.out, "auto", device, stop) as run:
        run.all_epochs()
        if run.step < run.steps:
            return None
        photos = run.data["photos"]
    distributed.limit_waiting(distributed.START.total_seconds())  # testing, ranks meet at the end only
    distributed.all_gather_objects(None)  # the last checkpoint is written
    trained = load_classifier(job.out)  # with the first rank's batch-norm statistics, as others will
    data = evaluation_data(
        config.model_dump(mode="json")["data"], job.test, "--test", same_reading(config.data)
    )
    right, tested = count_right(ready(trained.network, device), data, device, "test")
    trunk = 0 if config.method.freeze else config.optim.backbone_lr or config.optim.lr
    return {
        **shares(right, tested),
        "bn": trained.bn,
        **{"backbone": config.backbone, "weights": backbone.sha256},
        **{"recipe": job.recipe.stem, "epochs": config.epochs, "batch_size": config.data.batch_size},
        **{"lr": config.optim.lr, "backbone_lr": trunk},
        "data": {"shards": str(job.data), "photos": photos},
        "test": set_record(job.test, tested),
    }
