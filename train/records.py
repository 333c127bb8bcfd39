"""Records of what a run leaves in files: checkpoints, cards of exported backbones, lines of the log.

A record is built where it is written and validated where it is read: its version, the names and types of its
fields. Other fields are another version.
"""

import json
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, InstanceOf, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from train.networks import BackboneName

CHECKPOINT_VERSION = 2
CARD_VERSION = 1
SALIENCY_VERSION = 1
DETECT_VERSION = 1
Number = int | float


def wrong_field(error: ValidationError) -> str:
    """The first field that is not as a record has it, for errors."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


class _Record(BaseModel):
    """Base of the records: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class DataRecord(TypedDict, total=False):
    """The data set that a backbone was trained on, or the file that it was imported from."""

    photos: int
    classes: int
    class_names: list[str]
    manifest_sha256: str
    imported_from: str
    sha256: str


class ConfigRecord(TypedDict):
    """A run's config, by the fields that every version has; `RunConfig.stored` reads all of it."""

    __pydantic_config__ = ConfigDict(extra="allow")
    backbone: BackboneName
    method: dict[str, Any]
    data: dict[str, Any]


class RankRecord(TypedDict):
    """The state of one rank: its loader and its generators."""

    loader: dict[str, Any]
    rng: torch.Tensor
    cuda_rng: torch.Tensor | None


class CheckpointRecord(_Record):
    """The state of a run after an optimizer step."""

    version: Literal[2]
    step: int
    """Optimizer steps done."""
    epochs: Number
    identity: str
    """`RunConfig.identity`, which must be equal to resume."""
    config: str
    """The RunConfig, as JSON."""
    data: DataRecord
    metrics: dict[str, Number]
    """Metrics of the last line of the log."""
    backbone: str
    """The prefix of the backbone's names in `method`."""
    method: InstanceOf[dict]
    """state_dict of the method."""
    optimiser: InstanceOf[dict]
    """state_dict of the optimizer."""
    ranks: list[RankRecord]

    def run_config(self) -> ConfigRecord:
        """The config, parsed; raises ValueError if it is none of a run."""
        return TypeAdapter(ConfigRecord).validate_json(self.config)


class Card(_Record):
    """The card of exported weights; a JSON file beside them."""

    format: Literal["dali_bgaug backbone"]
    version: Literal[1]
    architecture: BackboneName
    features: int
    """Length of its features."""
    method: str
    step: int
    epochs: Number
    input: dict[str, Any]
    """Normalisation, range and channels of images."""
    metrics: dict[str, Number]
    data: DataRecord
    sha256: str
    """SHA-256 of the file of weights."""
    package_version: str = ""
    """Version of dali_bgaug; older cards have none."""
    config: ConfigRecord
    file_format: Literal["torchvision", "timm", "safetensors", "detectron2"] = "torchvision"
    """Of the weights (`export_formats.FORMATS`); in the file if it is not torchvision."""
    timm_model: str = ""
    """The name by which timm.create_model makes the network, of format timm."""


class SaliencyRecord(_Record):
    """The state of a training of a saliency network after an epoch."""

    version: Literal[1]
    step: int
    """Optimizer steps done, of all stages."""
    stage: int
    """Which network is at work, from 0."""
    epoch: int
    """Epochs of it that are done."""
    identity: str
    """Config, photos, maps and trunk, which must be equal to go on."""
    config: str
    """The SaliencyConfig, as JSON."""
    network: InstanceOf[dict]
    """state_dict of the network."""
    optimiser: InstanceOf[dict]
    """state_dict of the optimizer."""
    average: int
    """CRC-32 of the averaged maps; 0 in phase 2."""


class SaliencyCard(_Record):
    """The card of an exported saliency network; a JSON file beside it."""

    format: Literal["dali_bgaug saliency network"]
    version: Literal[1]
    trunk: BackboneName
    side: int
    """Of its input, in pixels."""
    input: dict[str, Any]
    """Normalisation, range and channels of photos; the ONNX file does the normalisation itself."""
    photos: int
    """That it was trained on."""
    voters: list[str]
    sha256: dict[str, str]
    """SHA-256 of the files beside the card."""
    package_version: str
    config: dict[str, Any]
    """The SaliencyConfig."""


class DetectRecord(_Record):
    """The state of a detection training after an optimizer step."""

    version: Literal[1]
    step: int
    """Optimizer steps done."""
    identity: str
    """Config, set and trunk, which must be equal to go on."""
    config: str
    """The DetectConfig, as JSON."""
    network: InstanceOf[dict]
    """state_dict of the detector."""
    optimiser: InstanceOf[dict]
    """state_dict of the optimizer."""


class RanksRecord(_Record):
    """Measurements of every rank since the last line of the log, in order of ranks."""

    data_wait: list[Number]
    """Share of the time that was spent waiting for the loader."""
    step_s: list[Number]
    """Seconds of an optimizer step apart from that: the networks, and waiting for later ranks."""
    probe_ms: list[Number]
    """Milliseconds of a fixed matrix product on the rank's device, which waits for no other rank."""
    memory_mb: list[Number] | None = None
    """Peak of the memory that tensors took on the GPU, in units of 10^6 bytes; none on the CPU."""


class LogLine(_Record, extra="allow"):
    """A line of log.jsonl: of an optimizer step, with the method's own metrics; of k-NN after an epoch; or of
    a checkpoint, once it is written."""

    __pydantic_extra__: dict[str, Number]
    step: int
    epoch: int | None = None
    loss: Number | None = None
    lr: Number | None = None
    images_per_s: Number | None = None
    data_wait: Number | None = None
    """Share of the time since the last line that was spent waiting for the loader, by the rank that waited
    longest."""
    ranks: RanksRecord | None = None
    """Older logs, and those of detection, have none."""
    knn_accuracy: Number | None = None
    knn_epoch: int | None = None
    checkpoint_stall_s: Number | None = None
    """Seconds that training stood still for a checkpoint: for the copy of its state, and for the wait."""
    checkpoint_wait_s: Number | None = None
    """Of these, the wait for the checkpoint before, if that was still being written."""
    checkpoint_write_s: Number | None = None
    """Seconds that writing it took in the background."""
    warning: str | None = None

    def values(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        return self.model_dump(exclude_none=True)

    def text(self) -> str:
        """The line."""
        return json.dumps(self.values()) + "\n"
