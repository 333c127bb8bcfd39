"""Faster and Mask R-CNN with C4 features."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from dali_bgaug.errors import UserError
from train.detect.network import box_losses, build_detector
from train.networks import build_backbone


def _build(name: str = "resnet18", *, masks: bool = False, side: int = 64) -> GeneralizedRCNN:
    torch.manual_seed(0)
    return build_detector(
        build_backbone(name),
        name,
        3,
        masks=masks,
        short_sides=(side,),
        longest=2 * side,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.2),
        anchors=(16, 32, 64),
        samples=16,
        proposals=(40, 20),
    )


def _photos() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Two photos of other sizes, an object each."""
    photos, targets = [torch.rand(3, 48, 64), torch.rand(3, 64, 56)], []
    for photo in photos:
        masks = torch.zeros(1, *photo.shape[1:], dtype=torch.uint8)
        masks[0, 10:40, 20:50] = 1
        boxes = torch.tensor([[20.0, 10.0, 50.0, 40.0]])
        targets.append({"boxes": boxes, "labels": torch.tensor([2]), "masks": masks})
    return photos, targets


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_weight_of_the_trunk_is_in_the_detector_once(name: str) -> None:
    """By reference; what is new are the proposals, the extra batch norm and what reads the features."""
    trunk = build_backbone(name)
    detector = build_detector(
        trunk, name, 20, masks=True, short_sides=(480,), longest=800, mean=(0, 0, 0), std=(1, 1, 1)
    )
    own = {value.data_ptr() for value in trunk.state_dict().values()}
    state = detector.state_dict()
    shared = {key for key, value in state.items() if value.data_ptr() in own}
    assert len(shared) == len(own) == len(trunk.state_dict())
    assert {key.removeprefix("backbone.").removeprefix("roi_heads.") for key in shared} == set(
        trunk.state_dict()
    )
    new = {key.rsplit(".", 1)[0] for key in set(state) - shared}
    assert new == {
        "rpn.head.conv.0.0",
        "rpn.head.cls_logits",
        "rpn.head.bbox_pred",
        "roi_heads.norm",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_predictor.conv5_mask",
        "roi_heads.mask_predictor.mask_fcn_logits",
    }
    assert all(value.requires_grad for value in detector.parameters())
    assert (
        len([one for one in detector.modules() if type(one) is nn.BatchNorm2d])
        == {
            "resnet18": 21,
            "resnet50": 54,
        }[name]
    )


def test_c4_as_detectron2_has_it() -> None:
    """R50-C4 with masks: shapes, and 35.3 million parameters for VOC's classes."""
    trunk = build_backbone("resnet50")
    detector = build_detector(
        trunk, "resnet50", 20, masks=True, short_sides=(640, 800), longest=1333, mean=(0, 0, 0), std=(1, 1, 1)
    )
    assert round(sum(value.numel() for value in detector.parameters()) / 1e6, 1) == 35.3
    assert detector.rpn.head.cls_logits.weight.shape == (15, 1024, 1, 1)
    assert detector.roi_heads.box_predictor.bbox_pred.weight.shape == (4 * 21, 2048)
    detector.training = detector.rpn.training = True
    assert (detector.rpn.pre_nms_top_n(), detector.rpn.post_nms_top_n()) == (12000, 2000)
    detector.rpn.training = False
    assert (detector.rpn.pre_nms_top_n(), detector.rpn.post_nms_top_n()) == (6000, 1000)
    strides = [one.stride for one in detector.backbone.layer2[0].modules() if isinstance(one, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2), (1, 1), (2, 2)]  # in the 3 x 3, and the shortcut


def test_boxes_are_cut_out_aligned() -> None:
    """Cells that say where they are, of 16 pixels: a box of 14 cells reads the very cells."""
    pool = _build().roi_heads.box_roi_pool
    cells = torch.arange(20.0).expand(1, 1, 20, 20).contiguous()
    [[found]] = pool(cells, [torch.tensor([[48.0, 0.0, 272.0, 224.0]])])
    torch.testing.assert_close(found[0], torch.arange(3.0, 17.0))


def test_losses_reach_every_parameter() -> None:
    detector = _build(masks=True).train()
    losses = detector(*_photos())
    assert set(losses) == {
        *("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"),
    }
    assert losses["loss_classifier"].item() == pytest.approx(np.log(4), abs=0.1)  # of four, all alike
    assert losses["loss_mask"].item() == pytest.approx(np.log(2), abs=0.05)
    sum(losses.values()).backward()
    assert all(value.grad is not None for value in detector.parameters())


def test_the_extra_norm_sees_all_boxes_once() -> None:
    """Masks use what was computed for boxes: batch norm's statistics move once a step."""
    detector = _build(masks=True).train()
    detector(*_photos())
    assert int(detector.roi_heads.norm.num_batches_tracked) == 1
    assert int(detector.roi_heads.layer4[0].bn1.num_batches_tracked) == 1


@pytest.mark.parametrize("masks", [False, True])
def test_detections_are_in_the_photos_own_pixels(masks: bool) -> None:
    """With a threshold of 0 an untrained network finds much, inside the photos."""
    detector = _build(masks=masks, side=128).eval()
    detector.roi_heads.score_thresh = 0.0
    photos, _ = _photos()
    with torch.no_grad():
        found = detector(photos)
    for photo, one in zip(photos, found, strict=True):
        height, width = photo.shape[1:]
        assert len(one["boxes"]) == len(one["labels"]) == len(one["scores"]) >= 3
        assert (one["boxes"].min(0).values >= 0).all()
        assert (one["boxes"].max(0).values <= torch.tensor([width, height] * 2) + 1e-3).all()
        assert set(one["labels"].tolist()) <= {1, 2, 3}
        assert ("masks" in one) == masks
        if masks:
            assert one["masks"].shape == (len(one["boxes"]), 1, height, width)


def test_losses_of_proposals() -> None:
    """Two photos of an object, background, and an anchor that is neither: by the 256 of each that should be
    sampled, as in detectron2, not by the two that are."""
    labels, off = [torch.tensor([1.0, 0.0, -1.0])] * 2, torch.zeros(3, 4)
    off[0] = torch.tensor([0.5, 0.0, -1.0, 0.0])
    objectness, boxes = _build().rpn.compute_loss(torch.zeros(6, 1), torch.zeros(6, 4), labels, [off] * 2)
    assert objectness.item() == pytest.approx(4 * np.log(2) / 512)
    assert boxes.item() == pytest.approx(3 / 512)


def test_box_losses() -> None:
    """Two boxes, one of class 1 whose own deltas are .5 and 1 off; the background's do not count."""
    logits = torch.zeros(2, 3)
    deltas = torch.zeros(2, 12)
    deltas[0, 4:8] = torch.tensor([0.5, 0.0, -1.0, 0.0])
    deltas[0, 8:] = deltas[1] = 9.0
    losses = box_losses(logits, deltas, torch.tensor([1, 0]), torch.zeros(2, 4))
    assert losses["loss_box_reg"].item() == pytest.approx(0.75)
    assert losses["loss_classifier"].item() == pytest.approx(np.log(3))


@pytest.mark.parametrize("name", ["alexnet", "drn_d_22_narrow", "resnet10_narrow"])
def test_other_trunks(name: str) -> None:
    with pytest.raises(UserError, match=f"backbone={name}: .* take resnet18 or resnet50"):
        _build(name)
