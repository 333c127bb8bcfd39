"""Linear probes for tests: what one is made of, and a recipe of seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dali_bgaug.config import override
from train.config import RunConfig
from train.evaluate.backbone import load_backbone
from train.evaluate.probe import ProbeJob, probe_config, run_probe
from train.signals import StopRequest

CPU = torch.device("cpu")
LINEAR = (
    *("data.batch_size=12", "data.device=cpu", "data.threads=1", "data.crop.scale=[0.5, 1.0]"),
    *("epochs=20", "optim.milestones=[15]", "optim.warmup_epochs=0", "optim.lr_batch=12", "optim.lr=0.3"),
)


class Files(NamedTuple):
    """What a probe is made of, and the words of its command line."""

    checkpoint: Path
    data: Path
    test: Path
    out: Path
    recipe: Path
    words: Sequence[str]

    def config(self) -> RunConfig:
        """The probe's run."""
        backbone, given = load_backbone(self.checkpoint), override({}, list(self.words))
        return probe_config(backbone, self.checkpoint, self.data, self.recipe, given)

    def run(self, stop: StopRequest | None = None) -> dict[str, Any] | None:
        """The probe's result."""
        job = ProbeJob(self.config(), self.test, self.out)
        return run_probe(job, CPU, stop or StopRequest())
