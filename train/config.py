"""What a training run is. Recipes in `configs/` are values of RunConfig; unknown keys are errors."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dali_bgaug.config import Options
from pipelines import LoaderConfig
from pipelines.config import FREE
from train.evaluate.neighbours import KnnOptions
from train.methods import AnyMethod
from train.networks import smallest_view
from train.optim import OptimOptions


class RunConfig(Options):
    """A pre-training run."""

    method: AnyMethod
    backbone: Literal["resnet10_narrow", "resnet18", "resnet50", "alexnet"] = "resnet50"
    data: LoaderConfig
    optim: OptimOptions
    epochs: int = Field(ge=1, le=10**6)
    init: Path | None = Field(default=None, strict=False)
    """Weights to start from in place of random ones (`train.initial`); a resumed run goes on from its
    checkpoint, and keeps what it started from on record."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights and of shuffling between ranks; the data has its own (`data.seed`)."""

    accumulate: int = Field(default=1, ge=1, le=2**16)
    """Forward passes a step: each takes 1/accumulate of `data.batch_size`, the step and its learning rate
    stay those of the whole. Refused where it would change the method's mathematics."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU, float32 on the CPU."""
    compile: bool = False
    """torch.compile the backbones: some minutes at the start, faster steps."""

    knn: KnnOptions = KnnOptions()

    log_every: int = Field(default=10, ge=1)
    """Steps between lines of log.jsonl (reading a loss off a GPU waits for it)."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints; the last step always leaves one."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """The newest so many checkpoints are kept,"""
    keep_every_epochs: int = Field(default=0, ge=0)
    """and one after every so many epochs, for good (0: none)."""
    timeout_s: int = Field(default=50, ge=1)
    """Seconds without an answer of another rank, at the start and once steps run, after which a rank gives
    up: a machine that vanished must not hold the others. Raise it where ranks start further apart, or where
    writing a checkpoint takes longer."""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if self.data.pipeline != self.method.pipeline:
            raise ValueError(
                f"data.pipeline={self.data.pipeline}: method.name={self.method.name} takes the views of "
                f"{self.method.pipeline}"
            )
        if self.data.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate}: must divide data.batch_size={self.data.batch_size}"
            )
        self.method.check(self.data.batch_size, self.accumulate)
        for name, view in self.data.views.items():
            if view.count and view.crop.size < smallest_view(self.backbone):
                raise ValueError(
                    f"data.views.{name}.crop.size={view.crop.size}: backbone={self.backbone} needs "
                    f"{smallest_view(self.backbone)} pixels at least"
                )
        for name, epochs in {
            "warmup_epochs": self.optim.warmup_epochs,
            "milestones": max(self.optim.milestones, default=0),
        }.items():
            if epochs > self.epochs:
                raise ValueError(f"optim.{name}={epochs:g}: longer than epochs={self.epochs}")
        return self

    @property
    def pass_data(self) -> LoaderConfig:
        """The loader of one forward pass."""
        return self.data.replaced(batch_size=self.data.batch_size // self.accumulate)

    def identity(self) -> str:
        """What must be equal to resume, as JSON: everything but where data lies and how often the run
        reports."""
        free = {
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
            "keep_every_epochs",
            "timeout_s",
            "compile",
            "knn",
            "init",
        }
        # A probe's backbone may have moved: the hash of its weights says whether it is the same. Weights to
        # start from are not read again.
        return self.model_dump_json(
            exclude={"data": FREE, "method": {"checkpoint"}, **dict.fromkeys(free, True)}
        )
