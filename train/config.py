"""The config of a training run. Recipes in `configs/` are values of RunConfig; unknown keys are errors."""

import json
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from dali_bgaug.config import Options, validate
from pipelines import LoaderConfig
from pipelines.config import Free, free_fields
from train.methods import AnyMethod
from train.neighbours import KnnOptions
from train.networks import BackboneName, smallest_view
from train.optim import OptimOptions


class RunConfig(Options):
    """A pre-training run."""

    method: AnyMethod
    backbone: BackboneName = "resnet50"
    data: LoaderConfig
    optim: OptimOptions
    epochs: int = Field(ge=1, le=10**6)
    init: Free[Path | None] = Field(default=None, strict=False)
    """Weights to start from in place of random ones (`train.initial`). A resumed run goes on from its
    checkpoint, reads them no more, and keeps on record what it started from."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the weights and of shuffling between ranks; the data has its own (`data.seed`)."""

    accumulate: int = Field(default=1, ge=1, le=2**16)
    """Forward passes a step: each takes 1/accumulate of `data.batch_size`, the step and its learning rate
    stay those of the whole. Refused where it would change the method's mathematics."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU, float32 on the CPU."""
    compile: Free[bool] = False
    """torch.compile the backbones: some minutes at the start, faster steps."""

    knn: Free[KnnOptions] = KnnOptions()

    log_every: Free[int] = Field(default=10, ge=1)
    """Steps between lines of log.jsonl (reading a loss off a GPU waits for it)."""
    checkpoint_every: Free[int] = Field(default=1000, ge=1)
    """Steps between checkpoints; the last step always leaves one."""
    keep_checkpoints: Free[int] = Field(default=2, ge=1)
    """Number of newest checkpoints that are kept."""
    keep_every_epochs: Free[int] = Field(default=0, ge=0)
    """Epochs between checkpoints that are kept for good (0: none)."""
    timeout_s: Free[int] = Field(default=50, ge=1)
    """Seconds without an answer of another rank after which a rank gives up, at the start and once steps run.
    Raise it where ranks start further apart, or where writing a checkpoint takes longer: the next one, and
    the end of the run, wait for it."""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if self.data.pipeline != self.method.pipeline:
            raise ValueError(
                f"data.pipeline={self.data.pipeline}: method.name={self.method.name} takes the views of "
                f"{self.method.pipeline}"
            )
        if (batch := self.data.batch_size) % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate}: must divide data.batch_size={batch}")
        self.method.check(batch, self.accumulate)
        smallest = smallest_view(self.backbone)
        for name, view in self.data.views.items():
            if view.count and view.crop.size < smallest:
                place = f"data.views.{name}.crop.size={view.crop.size}"
                raise ValueError(f"{place}: backbone={self.backbone} needs {smallest} pixels at least")
        last = max(self.optim.milestones, default=0)
        for name, epochs in (("warmup_epochs", self.optim.warmup_epochs), ("milestones", last)):
            if epochs > self.epochs:
                raise ValueError(f"optim.{name}={epochs:g}: longer than epochs={self.epochs}")
        return self

    @classmethod
    def stored(cls, values: dict[str, Any], source: str) -> "RunConfig":
        """The config of an earlier run, out of its record; keys that there are no more are left out.

        source: where it is from, for errors.
        """
        values = json.loads(text := json.dumps(values))
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            for problem in error.errors():
                if problem["type"] == "extra_forbidden":
                    *place, key = problem["loc"]  # the name of a method, which may be among these, is no key
                    del reduce(lambda section, name: section.get(name, section), place, values)[key]
        return validate(cls, values, source)

    def identity(self) -> str:
        """The identity of the run, equal wherever it resumes: all fields but those marked Free, as JSON."""
        sections = {name: free_fields(type(value)) for name, value in self if isinstance(value, Options)}
        return self.model_dump_json(exclude=sections | dict.fromkeys(free_fields(RunConfig), True))
