"""What a loader reads, and how: the `data` section of every recipe."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dali_bgaug.config import Options
from dali_bgaug.graph.background import BackgroundOptions
from dali_bgaug.graph.crop import NormaliseOptions
from dali_bgaug.graph.photometric import PhotometricOptions
from dali_bgaug.graph.read import ReaderOptions
from dali_bgaug.windows import CropOptions


class LoaderConfig(Options):
    """A loader's configuration; every field but `shards` has a default."""

    pipeline: Literal["moco_v2"] = "moco_v2"
    shards: Path = Field(strict=False)
    """Folder of packed shards (`tools.shards`)."""
    batch_size: int = Field(default=256, ge=2)
    """Photos a batch over all ranks; the number of ranks must divide it."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where pixels are made; auto takes a GPU if there is one."""
    verify: bool | None = None
    """Checksums of the shards at start; by default (null) if they are below 1 GiB."""
    half: bool = False
    """float16 views instead of float32."""

    crop: CropOptions = CropOptions()
    photometric: PhotometricOptions = PhotometricOptions()
    background: BackgroundOptions = BackgroundOptions()
    normalise: NormaliseOptions = NormaliseOptions()

    reader: ReaderOptions = ReaderOptions()
    threads: int = Field(default=0, ge=0)
    """CPU threads of a rank's pipeline; 0: the CPUs of this process shared out among the ranks of the
    machine."""
    prefetch: int = Field(default=2, ge=1)
    """Finished batches kept ahead."""
    hw_decoder_load: float = Field(default=0.65, ge=0, le=1)
    """GPU: share of photos for the hardware JPEG decoder."""

    @model_validator(mode="after")
    def _check(self) -> "LoaderConfig":
        if self.background.kind == "none" and self.background.warmup_epochs:
            raise ValueError(
                "background.warmup_epochs: there is no background to warm up (background.kind=none)"
            )
        return self
