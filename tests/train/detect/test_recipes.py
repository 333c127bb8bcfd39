"""The recipes of detection, against appendix A.10 and MoCo's detection/."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from dali_bgaug.config import read_yaml, validate
from dali_bgaug.errors import UserError
from train.detect.config import DetectConfig
from train.detect.network import build_detector
from train.detect.trainer import _build_optimizer
from train.detect.trunk import load_trunk

RECIPES = Path(__file__).parents[3] / "configs" / "detect"


def _read(name: str, **changes: object) -> DetectConfig:
    return validate(DetectConfig, {**read_yaml(RECIPES / name), "data": "d", **changes}, name)


def test_there_are_no_others() -> None:
    assert {path.stem for path in RECIPES.iterdir()} == {
        "voc",
        "voc_byol",
        "voc_swav",
        "coco",
        "small",
        "small_coco",
    }


def test_voc() -> None:
    """Splits, steps, milestones, warm-up, sides: MoCo's pascal_voc_R_50_C4_24k.yaml. Batch, rate, statistics
    of 200 batches: its Base-RCNN-C4-BN.yaml. Warm-up from 1/1000, momentum, decay, mirroring, the long side,
    anchors, 512 boxes, 2000 proposals: detectron2's defaults; 1000 in testing: MoCo's again."""
    config = _read("voc.yaml")
    assert config == DetectConfig(data=Path("d"))  # defaults are these
    assert (config.train, config.test) == (("VOC2007/trainval", "VOC2012/trainval"), ("VOC2007/test",))
    assert (config.backbone, config.batch_size, config.steps, config.lr) == ("resnet50", 16, 24000, 0.02)
    assert (config.warmup_steps, config.warmup_start, config.milestones) == (100, 0.001, (18000, 22000))
    assert (config.momentum, config.weight_decay, config.flip) == (0.9, 1e-4, True)
    assert config.short_sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert (config.longest, config.anchors) == (1333, (32, 64, 128, 256, 512))
    assert (config.samples, config.proposals, config.statistics) == (512, (2000, 1000), 200)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("voc_byol.yaml", {"lr": 0.08}),
        ("voc_swav.yaml", {"lr": 0.1, "warmup_steps": 1000, "warmup_start": 0.333}),
        (
            "coco.yaml",
            {
                "layout": "coco",
                "train": ("train2017",),
                "test": ("val2017",),
                "masks": True,
                "steps": 180000,
                "warmup_steps": 1000,
                "milestones": (120000, 160000),
                "short_sides": (640, 672, 704, 736, 768, 800),
            },
        ),
    ],
)
def test_what_others_change(name: str, changes: dict[str, object]) -> None:
    """BYOL's rate: A.10. SwAV's: as circulated. COCO: MoCo's coco_R_50_C4_2x.yaml, detectron2's warm-up."""
    before, after = _read("voc.yaml").model_dump(), _read(name).model_dump()
    assert {key: value for key, value in after.items() if before[key] != value} == changes


def test_the_small_ones() -> None:
    config, masks = _read("small.yaml"), _read("small_coco.yaml")
    assert (config.backbone, config.layout, config.train) == ("resnet18", "voc", ("VOC2007/trainval",))
    assert (masks.backbone, masks.layout, masks.masks) == ("resnet18", "coco", True)


def test_what_no_recipe_changes() -> None:
    """The network of the full recipes: photos as the trunk's own, ImageNet's; detectron2's defaults; MoCo's
    FREEZE_AT 0, Res5ROIHeadsExtraNorm and 6000 proposals in testing."""
    trunk, config = load_trunk("resnet50", None), _read("coco.yaml")
    network = build_detector(
        *(trunk.network, "resnet50", 80),
        masks=config.masks,
        short_sides=config.short_sides,
        longest=config.longest,
        mean=trunk.mean,
        std=trunk.std,
    )
    assert [255 * value for value in trunk.mean] == pytest.approx([123.675, 116.28, 103.53])
    assert [255 * value for value in trunk.std] == pytest.approx([58.395, 57.12, 57.375])
    assert all(value.requires_grad for value in network.parameters())
    assert network.roi_heads.norm.num_features == 2048
    proposals, heads = network.rpn, network.roi_heads
    assert proposals.anchor_generator.aspect_ratios == ((0.5, 1.0, 2.0),)
    assert (proposals.proposal_matcher.low_threshold, proposals.proposal_matcher.high_threshold) == (0.3, 0.7)
    assert (heads.proposal_matcher.low_threshold, heads.proposal_matcher.high_threshold) == (0.5, 0.5)
    samplers = [
        (one.batch_size_per_image, one.positive_fraction)
        for one in (proposals.fg_bg_sampler, heads.fg_bg_sampler)
    ]
    assert samplers == [(256, 0.5), (512, 0.25)]
    assert proposals._pre_nms_top_n == {"training": 12000, "testing": 6000}
    assert (proposals.nms_thresh, heads.nms_thresh) == (0.7, 0.5)
    assert (heads.score_thresh, heads.detections_per_img) == (0.05, 100)
    assert (proposals.box_coder.weights, heads.box_coder.weights) == ((1, 1, 1, 1), (10, 10, 5, 5))
    assert np.exp(heads.box_coder.bbox_xform_clip) == pytest.approx(1000 / 16)
    pool = heads.box_roi_pool
    assert (pool.output_size, pool.spatial_scale, pool.sampling_ratio, pool.aligned) == (14, 1 / 16, 0, True)


def test_batch_norm_has_no_weight_decay() -> None:
    """detectron2's WEIGHT_DECAY_NORM 0; biases of other layers do."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    decayed, other = _build_optimizer(network, _read("voc.yaml")).param_groups
    assert (decayed["weight_decay"], [len(value) for value in decayed["params"]]) == (1e-4, [4, 4])
    assert other["weight_decay"] == 0
    assert [id(value) for value in other["params"]] == [id(value) for value in network[1].parameters()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": True}, "masks=true: VOC has no masks"),
        ({"layout": "coco"}, "of COCO one split each"),
        ({"milestones": [3, 2]}, r"milestones=\[3, 2\]: must be increasing"),
        ({"longest": 100}, "longest=100: must not be less"),
        ({"backbone": "alexnet"}, "backbone='alexnet'"),
        ({"short_sides": []}, "short_sides"),
        ({"lr": -1.0}, "lr=-1.0"),
    ],
)
def test_bad_values(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _read("voc.yaml", **changes)
