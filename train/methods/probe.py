"""A linear classifier on a pre-trained backbone: linear probes (frozen), and fine-tuning (trained too)."""

import math
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from dali_bgaug.config import Options
from dali_bgaug.errors import UserError
from pipelines.config import Free
from train import checkpoint
from train.batch_norm import group_batch_norm
from train.export import hash_weights, load_weights, read_backbone
from train.foreign import take_backbone
from train.method import Batch, Method, MethodOptions, Metrics, Setting, classification
from train.networks import build_backbone, build_classifier, read_features


class Pretraining(Options):
    """The run that a backbone comes from, for results; None: not known."""

    source: str | None = None
    """Another project, of `foreign.SOURCES`, whose file it is in; None: a run of ours."""
    method: str | None = None
    background: str | None = None
    """`data.background.kind`."""
    p_pos: float | None = None
    """`data.background.p_pos`, if there is a background."""
    epochs: int | None = None
    seed: int | None = None
    init: str | None = None
    """What it started from in place of random weights."""


class ProbeOptions(MethodOptions):
    """A probe's options; `train.evaluate` fills in whose backbone it is."""

    pipeline: ClassVar[str] = "supervised"

    name: Literal["probe"] = "probe"
    checkpoint: Free[Path] = Field(strict=False)
    """Source of the backbone: a run's folder, a checkpoint, or exported weights with their card. These
    may move: `weights` says whether they are the same."""
    weights: str | None = None
    """SHA-256 of the backbone's weights (`train.export.Backbone`): a run is not resumed with others."""
    pretraining: Free[Pretraining] = Pretraining()
    """The run of the backbone; its `source` says how the file is read."""
    recipe: Free[str | None] = None
    """Name of the probe's recipe, for results."""
    freeze: bool = True
    """The backbone's parameters stay as they are (linear probe); false: they are trained (fine-tuning)."""
    backbone_bn: Literal["train", "eval"] = "train"
    """train: batch norm uses the batch's statistics, and its running statistics adapt to these photos; eval:
    the running statistics of pre-training, unchanged. The paper's Table 2 has `train` for MoCo-v2 and BYOL,
    `eval` for SwAV; RotNet's own probes have `eval`."""
    layer: Literal["last", "conv5"] = "last"
    """conv5: of AlexNet, what its fifth convolution makes."""
    classifier: Literal["linear", "normalised"] = "linear"
    """linear: weights start as N(0, .01). normalised, RotNet's: batch norm without weights of its own comes
    first, and the weights start as N(0, sqrt(2 / classes)), the second number a standard deviation."""

    def build(self, setting: Setting) -> "Probe":
        """The backbone with its weights, and a new classifier of the data set's classes.

        Raises:
            UserError: the checkpoint's weights are not the backbone's, or not those of `weights`.
        """
        return Probe(self, setting)


class Probe(Method):
    """A pre-trained backbone and a new linear classifier."""

    def __init__(self, options: ProbeOptions, setting: Setting) -> None:
        super().__init__()
        if options.layer == "conv5" and setting.backbone != "alexnet":
            raise UserError(
                f"method.layer=conv5: of alexnet, this is a {setting.backbone}; take method.layer=last"
            )
        self.freeze, self.backbone_bn, self.layer = options.freeze, options.backbone_bn, options.layer
        self.network = build_backbone(setting.backbone)
        if source := options.pretraining.source:
            state = checkpoint.read(options.checkpoint)
            weights = take_backbone(state, setting.backbone, options.checkpoint, source=source)
        else:
            weights = read_backbone(options.checkpoint).weights
        load_weights(self.network, weights, f"{options.checkpoint} as a {setting.backbone}")
        if options.weights not in (None, hash_weights(weights)):
            raise UserError(
                f"{options.checkpoint}: holds other weights than when this began; choose another --out"
            )
        if self.backbone_bn == "train":
            group_batch_norm(self.network, options.grouping(setting), setting.device)
        self.network.requires_grad_(not self.freeze)
        normalised = options.classifier == "normalised"
        self.classifier = build_classifier(setting.backbone, self.layer, setting.classes, normalised)
        nn.init.normal_(self.classifier.weight, std=math.sqrt(2 / setting.classes) if normalised else 0.01)
        nn.init.zeros_(self.classifier.bias)
        if normalised:
            group_batch_norm(self.classifier, options.grouping(setting), setting.device)
        self.chance_loss = math.log(setting.classes)

    def train(self, mode: bool = True) -> "Probe":
        """As a module's, but that batch norm may stay in evaluation mode."""
        super().train(mode)
        if self.backbone_bn == "eval":
            self.network.eval()
        return self

    def forward(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """batch: `image` [N, 3, H, W] and `label` int64 [N]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            features = read_features(self.network, batch["image"], self.layer)
        return classification(self.classifier(features), batch["label"], features)
