"""The config of a detection training. Recipes in `configs/detect/` are values of it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dali_bgaug.config import Options
from pipelines.config import Free, free_fields

Sides = Annotated[tuple[Annotated[int, Field(ge=16)], ...], Field(strict=False, min_length=1)]
Splits = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Count = Annotated[int, Field(ge=1)]


class DetectConfig(Options):
    """A training, and the test after it. Defaults are MoCo's for VOC."""

    data: Free[Path] = Field(strict=False)
    """Folder of the set."""
    layout: Literal["voc", "coco"] = "voc"
    train: Splits = ("VOC2007/trainval", "VOC2012/trainval")
    """Splits to train on: VOC2007/trainval, of COCO train2017."""
    test: Splits = ("VOC2007/test",)
    """Splits to test on."""
    masks: bool = False
    """Mask R-CNN, not Faster R-CNN; of COCO alone, VOC has no masks of all objects."""
    backbone: Literal["resnet18", "resnet50"] = "resnet50"
    init: Free[Path | None] = Field(default=None, strict=False)
    """The backbone's weights: a run, a checkpoint or an export of this project; None: random ones."""
    batch_size: Count = 16
    """Photos of all ranks a step."""
    steps: Count = 24000
    lr: float = Field(default=0.02, gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(default=100, ge=0)
    warmup_start: float = Field(default=0.001, ge=0, le=1)
    """Learning rate at the first step, as a share of the peak; it rises linearly."""
    milestones: Annotated[tuple[int, ...], Field(strict=False)] = (18000, 22000)
    """Steps from which on the rate is a tenth of what it was."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    """Not of normalisation."""
    short_sides: Sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """Of photos, in pixels: in training one is drawn for each photo, in testing it is the last."""
    longest: int = Field(default=1333, ge=16)
    """Long side of a photo, at most."""
    anchors: Sides = (32, 64, 128, 256, 512)
    """Sides of the anchors' squares, in pixels."""
    samples: Count = 512
    """Boxes of a photo that the heads learn from."""
    proposals: Annotated[tuple[Count, Count], Field(strict=False)] = (2000, 1000)
    """Of a photo, in training and in testing."""
    flip: bool = True
    """Mirror half of the photos in training."""
    statistics: int = Field(default=200, ge=0)
    """Batches whose statistics batch norm has in testing ("precise BN"); 0: running averages of training."""
    log_every: Free[Count] = 20
    checkpoint_every: Free[Count] = 1000
    """Steps; the newest two checkpoints are kept."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Free[Literal["auto", "cpu", "gpu"]] = "auto"
    threads: Free[Count] = 4
    """Of a rank, that decode photos."""

    @model_validator(mode="after")
    def _check(self) -> "DetectConfig":
        if self.masks and self.layout == "voc":
            raise ValueError("masks=true: VOC has no masks of all objects; take layout=coco, or masks=false")
        if self.layout == "coco" and (len(self.train), len(self.test)) != (1, 1):
            raise ValueError("train, test: of COCO one split each, e.g. train=[train2017] test=[val2017]")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones={list(self.milestones)}: must be increasing steps")
        if self.longest < max(self.short_sides):
            raise ValueError(f"longest={self.longest}: must not be less than the longest of short_sides")
        return self

    def identity(self) -> str:
        """The identity of the training, equal wherever it resumes: all fields but those marked Free."""
        return self.model_dump_json(exclude=dict.fromkeys(free_fields(DetectConfig), True))
