"""A classifier of a run with labels, and how many photos of a set it gets right."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dali_bgaug.errors import UserError
from pipelines import LoaderConfig
from train import distributed
from train.config import RunConfig
from train.evaluate.backbone import Loaded
from train.export import Backbone, backbone_weights, find_checkpoint, load_weights, read_checkpoint
from train.features import batches
from train.networks import build_backbone, build_classifier, read_features

TOP = (1, 5)


class Classifier(nn.Module):
    """A backbone and a linear layer: [N, 3, H, W] -> logits [N, classes]."""

    def __init__(self, backbone: nn.Module, layer: str, linear: nn.Linear, classes: list[str]) -> None:
        """classes: names, in order of labels."""
        super().__init__()
        self.backbone, self.layer, self.linear, self.classes = backbone, layer, linear, classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        return self.linear(read_features(self.backbone, x, self.layer).float())


def load_classifier(path: Path) -> Loaded:
    """The classifier of a run with labels (a probe, or supervised training), in evaluation mode.

    Args:
        path: the run's folder or a checkpoint; every rank must call this.

    Raises:
        UserError: it has no classifier, or weights that are not exactly its own.
    """
    path = find_checkpoint(path)
    record = read_checkpoint(path)
    config = RunConfig.stored(record.run_config(), f"{path}: config")
    method, prefix, classes = config.method, "classifier.", record.data["classes"]
    if method.name not in ("probe", "supervised"):
        raise UserError(
            f"{path}: a backbone trained by {method.name} has no classifier; give the run of a linear "
            "probe (`linear` trains one), or, to background-gap, --train=SHARDS to fit one on"
        )
    layer = getattr(method, "layer", "last")
    backbone = build_backbone(config.backbone)
    stored = Backbone(backbone_weights(record), record.run_config())
    load_weights(backbone, stored.weights, f"{path} as a {config.backbone}")
    normalised = getattr(method, "classifier", "linear") == "normalised"
    linear = build_classifier(config.backbone, layer, classes, normalised)
    weights = {k.removeprefix(prefix): v for k, v in record.method.items() if k.startswith(prefix)}
    load_weights(linear, weights, f"{path}: classifier of {classes} classes")
    numbers = [str(label) for label in range(linear.out_features)]  # of runs made before names were kept
    network = Classifier(backbone, layer, linear, record.data.get("class_names", numbers))
    return Loaded(network.eval(), config, stored.sha256)


@torch.no_grad()
def count_right(
    logits: Callable[[torch.Tensor], torch.Tensor], data: LoaderConfig, device: torch.device, title: str
) -> tuple[list[int], int]:
    """Top-k counts: photos of a set whose class is among the TOP most likely, and photos in all.

    logits: images [n, 3, H, W] on `device` -> [n, classes]. Counts are of all ranks, each photo once; every
    rank must call this.
    """
    counts = torch.zeros(len(TOP) + 1, dtype=torch.double, device=device)
    for images, labels in batches(data, device, title):
        counts += torch.cat([right_in_top(logits(images), labels), counts.new_tensor([len(labels)])])
    *right, photos = map(int, distributed.all_reduce_sum(counts).tolist())
    return right, photos


def right_in_top(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Rows of logits [n, classes] whose label is among the TOP largest: double [len(TOP)]."""
    order = logits.topk(min(max(TOP), logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack([order[:, :k].any(dim=1).double().sum() for k in TOP])


def shares(right: Sequence[int], photos: int) -> dict[str, Any]:
    """`top1`, `top5` and the count of photos, as results have them."""
    return {**{f"top{k}": round(n / photos, 4) for k, n in zip(TOP, right, strict=True)}, "photos": photos}
