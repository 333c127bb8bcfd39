"""Faster and Mask R-CNN with C4 features, of torchvision's parts, as detectron2 builds MoCo's.

A ResNet's first three stages are the features (stride 16) of which the region proposal network makes boxes;
the fourth, with a batch norm more behind it (`Res5ROIHeadsExtraNorm`), sees each box's 14 x 14 cells. Nothing
is frozen, no batch norm is left as it was.

As in detectron2, and other than in torchvision's own detectors: one feature map, aligned RoIAlign with as
many samples as cells are large, L1 losses of boxes, losses of proposals by the number that should be sampled,
the fourth stage once for boxes and masks, 6000 proposals to 1000 in testing. What differs from detectron2 is
listed in docs/evaluation.md; torchvision pads photos to multiples of 32 pixels because it divides them to
find the size of a cell.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import RoIAlign

from dali_bgaug.errors import UserError
from train.networks import FEATURES

STRIDE = 16
"""Pixels of a cell of the features that boxes are cut from."""
_CELLS = 14
_MASK_CHANNELS = 256
_RATIOS = (0.5, 1.0, 2.0)
Losses = dict[str, torch.Tensor]
Boxes = list[torch.Tensor]
Targets = list[dict[str, torch.Tensor]]


def build_detector(
    trunk: nn.Module,
    name: str,
    classes: int,
    *,
    masks: bool,
    short_sides: Sequence[int],
    longest: int,
    mean: Sequence[float],
    std: Sequence[float],
    anchors: Sequence[int] = (32, 64, 128, 256, 512),
    samples: int = 512,
    proposals: tuple[int, int] = (2000, 1000),
) -> GeneralizedRCNN:
    """Faster R-CNN, or Mask R-CNN if `masks`, on a trunk, whose modules it takes.

    The network takes photos, a list of float [3, H, W] in [0, 1]; in training also targets, a list of
    {boxes: float [N, 4], labels: int64 [N], from 1, masks: uint8 [N, H, W]}. It returns losses by name; in
    testing boxes, labels, scores and masks [N, 1, H, W], each photo's.

    Args:
        trunk, name: a backbone of ours, and its name.
        short_sides: of photos, in pixels; in training one is drawn for each photo, in testing it is the last.
        longest: no photo's long side is longer.
        mean, std: of photos in [0, 1], by channel.
        anchors: sides of the anchors' squares, in pixels.
        samples: boxes of a photo that the heads learn from, a quarter of them of objects.
        proposals: of a photo, in training and in testing.

    Raises:
        UserError: the trunk is no ResNet of four stages.
    """
    if not isinstance(trunk, torchvision.models.ResNet):
        raise UserError(f"backbone={name}: C4 features are those of a ResNet; take resnet18 or resnet50")
    last = FEATURES[name]
    stem = [(part, getattr(trunk, part)) for part in ("conv1", "bn1", "relu", "maxpool")]
    stages = [(part, getattr(trunk, part)) for part in ("layer1", "layer2", "layer3")]
    body = nn.Sequential()
    for part, module in (*stem, *stages):
        body.add_module(part, module)
    head = RPNHead(last // 2, len(anchors) * len(_RATIOS))
    generator = AnchorGenerator((tuple(anchors),), (_RATIOS,))
    rpn = _Proposals(
        *(generator, head, 0.7, 0.3, 256, 0.5),
        {"training": 12000, "testing": 6000},
        dict(zip(("training", "testing"), proposals, strict=True)),
        nms_thresh=0.7,
    )
    heads = _Heads(trunk.layer4, last, classes + 1, masks, samples)
    transform = GeneralizedRCNNTransform(tuple(short_sides), longest, list(mean), list(std))
    return GeneralizedRCNN(body, rpn, heads, transform)


class _Proposals(RegionProposalNetwork):
    """Region proposals, whose boxes are learnt by L1."""

    def compute_loss(
        self,
        objectness: torch.Tensor,
        pred_bbox_deltas: torch.Tensor,
        labels: Boxes,
        regression_targets: Boxes,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of objectness and of boxes, by the number of anchors that are sampled where there are as many."""
        positive, negative = (torch.where(torch.cat(chosen))[0] for chosen in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        targets = torch.cat(regression_targets)[positive]
        boxes = F.l1_loss(pred_bbox_deltas[positive], targets, reduction="sum")
        truth, logits = torch.cat(labels)[sampled], objectness.flatten()[sampled]
        right = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        count = self.fg_bg_sampler.batch_size_per_image * len(labels)
        return right / count, boxes / count


class _Heads(RoIHeads):
    """The trunk's last stage on the cells of each box, and what reads its features."""

    def __init__(self, layer4: nn.Module, channels: int, outputs: int, masks: bool, samples: int) -> None:
        """channels: of `layer4`'s features. outputs: classes and background."""
        predictor = FastRCNNPredictor(channels, outputs)
        for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        pool = RoIAlign(_CELLS, 1 / STRIDE, sampling_ratio=0, aligned=True)
        thresholds = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 100}
        super().__init__(pool, None, predictor, 0.5, 0.5, samples, 0.25, None, **thresholds)
        self.layer4 = layer4
        self.norm = nn.BatchNorm2d(channels)
        if masks:
            self.mask_predictor = MaskRCNNPredictor(channels, _MASK_CHANNELS, outputs)
            nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.001)

    def forward(
        self,
        features: dict[str, torch.Tensor],
        proposals: Boxes,
        image_shapes: list[tuple[int, int]],
        targets: Targets | None = None,
    ) -> tuple[Targets, Losses]:
        """Detections of each photo, in testing; losses, in training."""
        [cells] = features.values()
        if not self.training:
            return self._detect(cells, proposals, image_shapes), {}
        proposals, matched, labels, box_targets = self.select_training_samples(proposals, targets)
        seen = self._look(cells, proposals)
        logits, deltas = self.box_predictor(seen.mean((2, 3)))
        losses = box_losses(logits, deltas, torch.cat(labels), torch.cat(box_targets))
        if self.mask_predictor is not None:
            inside = [label > 0 for label in labels]
            losses["loss_mask"] = maskrcnn_loss(
                self.mask_predictor(seen[torch.cat(inside)]),
                [boxes[chosen] for boxes, chosen in zip(proposals, inside, strict=True)],
                [target["masks"] for target in targets],
                [target["labels"] for target in targets],
                [one[chosen] for one, chosen in zip(matched, inside, strict=True)],
            )
        return [], losses

    def _look(self, cells: torch.Tensor, boxes: Boxes) -> torch.Tensor:
        """Features of boxes, [R, channels, 7, 7]."""
        return self.norm(self.layer4(self.box_roi_pool(cells, boxes)))

    def _detect(self, cells: torch.Tensor, proposals: Boxes, shapes: list[tuple[int, int]]) -> Targets:
        logits, deltas = self.box_predictor(self._look(cells, proposals).mean((2, 3)))
        found = self.postprocess_detections(logits, deltas, proposals, shapes)
        result = [
            {"boxes": boxes, "scores": scores, "labels": labels}
            for boxes, scores, labels in zip(*found, strict=True)
        ]
        if self.mask_predictor is not None:
            masks = self.mask_predictor(self._look(cells, found[0]))
            for one, shapes_ in zip(result, maskrcnn_inference(masks, found[2]), strict=True):
                one["masks"] = shapes_
        return result


def box_losses(
    logits: torch.Tensor, deltas: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
) -> Losses:
    """Cross-entropy of classes, and L1 of the boxes of objects by the number of all boxes.

    logits: [R, outputs]. deltas: [R, 4 outputs], a box for each class. labels: int64 [R], 0 is background.
    targets: [R, 4].
    """
    inside = torch.where(labels > 0)[0]
    chosen = deltas.unflatten(1, (-1, 4))[inside, labels[inside]]
    distance = F.l1_loss(chosen, targets[inside], reduction="sum")
    return {
        "loss_classifier": F.cross_entropy(logits, labels),
        "loss_box_reg": distance / len(labels),
    }
