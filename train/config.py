"""What a training run is. Recipes in `configs/` are values of RunConfig; unknown keys are errors."""

from typing import Literal

from pydantic import Field, model_validator

from dali_bgaug.config import Options
from pipelines import LoaderConfig
from train.methods.moco import MocoOptions


class OptimOptions(Options):
    """SGD with warm-up and cosine."""

    lr: float = Field(gt=0)
    """Peak learning rate per 256 photos; scales linearly with the global batch."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_epochs: float = Field(default=0, ge=0)


class RunConfig(Options):
    """A pre-training run."""

    method: MocoOptions = MocoOptions()
    backbone: Literal["resnet18", "resnet50"] = "resnet50"
    data: LoaderConfig
    optim: OptimOptions
    epochs: int = Field(ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights and of shuffling between ranks; the data has its own (`data.seed`)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU, float32 on the CPU."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of log.jsonl (reading a loss off a GPU waits for it)."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints; the last step always leaves one."""
    keep_checkpoints: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if self.data.pipeline != self.method.name:
            raise ValueError(
                f"data.pipeline={self.data.pipeline}: method.name={self.method.name} takes other views"
            )
        if self.method.queue % self.data.batch_size:
            raise ValueError(
                f"method.queue={self.method.queue}: must be divisible by "
                f"data.batch_size={self.data.batch_size}, so that a batch of keys replaces whole batches"
            )
        if self.optim.warmup_epochs > self.epochs:
            raise ValueError(
                f"optim.warmup_epochs={self.optim.warmup_epochs}: longer than epochs={self.epochs}"
            )
        return self
