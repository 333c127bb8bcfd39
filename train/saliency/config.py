"""The config of a training of a saliency network. Recipes in `configs/saliency/` are values of it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dali_bgaug.config import Options
from pipelines.config import Free, free_fields
from train.networks import BackboneName
from train.saliency.network import STRIDE

VoterName = Annotated[str, Field(pattern=r"^[\w-]+$")]


class RefineOptions(Options):
    """Phase 1: networks of every voter's own smooth its maps."""

    lr: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, min_length=1)] = (
        1e-6,
        2e-6,
        5e-6,
    )
    """Learning rate of each round. A round starts from the trunk's weights anew, and learns what the round
    before has averaged."""
    epochs: int = Field(default=25, ge=1)
    """Of each round."""
    beta2: float = Field(default=1.0, gt=0)
    """How much recall counts in the F loss."""
    decay: float = Field(default=0.7, ge=0, lt=1)
    """Of the moving average of refined predictions, by epoch."""


class FuseOptions(Options):
    """Phase 2: one network of all refined maps."""

    lr: float = Field(default=1e-4, gt=0)
    epochs: int = Field(default=200, ge=1)
    beta2: float = Field(default=4.0, gt=0)
    """How much recall counts in the F loss."""
    flip: bool = False
    """Mirror half of the photos, drawn anew in every epoch, with their maps. DeepUSPS mirrors none."""


class SaliencyConfig(Options):
    """A training without labels. Defaults are those of DeepUSPS's program."""

    photos: Free[Path] = Field(strict=False)
    """Folder of photos."""
    maps: Free[dict[VoterName, Annotated[Path, Field(strict=False)]]] = Field(min_length=1)
    """Mask stores of the photos by the voters' names: at least one."""
    photo_list: Free[Path | None] = Field(default=None, strict=False)
    """Text file of the photos to train with, a path below `photos` a line; None: all that have maps. Those
    without a map are left out and named."""
    trunk: BackboneName = "drn_d_105"
    init: Free[Path | None] = Field(default=None, strict=False)
    """The trunk's weights: a run, a checkpoint or an export of this project; None: random ones."""
    head_std: float = Field(default=1.0, gt=0)
    """Standard deviation of the head's first weights: 1 by the rule of DRNs, sqrt(2 / outputs). Predictions
    are then sure of themselves from the start, and a trunk that is not nearly right unlearns it slowly."""
    side: int = Field(default=432, ge=32)
    """Photos and maps are stretched to squares of so many pixels."""
    batch_size: int = Field(default=20, ge=1)
    """Photos of all ranks between two steps."""
    accumulate: int = Field(default=1, ge=1)
    """Passes a step, each with its part of `batch_size`."""
    thresholds: dict[VoterName, Annotated[float, Field(ge=0, lt=1)]] = Field(default={})
    """By voter: from which saliency on its own maps are foreground. A voter that is not here has Otsu's
    threshold of all its maps, which needs no labels."""
    refine: RefineOptions = RefineOptions()
    fuse: FuseOptions = FuseOptions()
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Free[Literal["auto", "cpu", "gpu"]] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU, float32 on the CPU."""
    workers: Free[int] = Field(default=0, ge=0)
    """Processes a rank that refine predictions; 0: the CPUs there are, less one."""

    @model_validator(mode="after")
    def _check(self) -> "SaliencyConfig":
        if self.trunk == "alexnet":
            raise ValueError("trunk=alexnet: its cells are too coarse; take another trunk")
        if self.side % STRIDE:
            raise ValueError(f"side={self.side}: must be a multiple of {STRIDE}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate}: must divide batch_size={self.batch_size}")
        if unknown := sorted(set(self.thresholds) - set(self.maps)):
            raise ValueError(
                f"thresholds.{unknown[0]}: no voter of this name in maps ({', '.join(self.maps)})"
            )
        return self

    def identity(self) -> str:
        """The identity of the training, equal wherever it resumes: all fields but those marked Free, and the
        voters, in their order."""
        fields = self.model_dump_json(exclude=dict.fromkeys(free_fields(SaliencyConfig), True))
        return f"{fields} {', '.join(self.maps)}"
