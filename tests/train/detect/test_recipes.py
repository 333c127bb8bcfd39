"""The recipes of detection, against appendix A.10 and MoCo's detection/."""

from pathlib import Path

import pytest

from dali_bgaug.config import read_yaml, validate
from dali_bgaug.errors import UserError
from train.detect.config import DetectConfig

RECIPES = Path(__file__).parents[3] / "configs" / "detect"


def _read(name: str, **changes: object) -> DetectConfig:
    return validate(DetectConfig, {**read_yaml(RECIPES / name), "data": "d", **changes}, name)


def test_there_are_no_others() -> None:
    assert {path.stem for path in RECIPES.iterdir()} == {"voc", "voc_byol", "voc_swav", "coco", "small"}


def test_voc() -> None:
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
    before, after = _read("voc.yaml").model_dump(), _read(name).model_dump()
    assert {key: value for key, value in after.items() if before[key] != value} == changes


def test_the_small_one() -> None:
    config = _read("small.yaml")
    assert (config.backbone, config.layout, config.train) == ("resnet18", "voc", ("VOC2007/trainval",))


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
