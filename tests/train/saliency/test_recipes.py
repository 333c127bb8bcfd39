"""The recipes of saliency training, against the paper and DeepUSPS's program."""

from pathlib import Path
from typing import Any

from dali_bgaug.config import read_yaml, validate
from train.config import RunConfig
from train.saliency.config import SaliencyConfig

RECIPES = Path(__file__).parents[3] / "configs" / "saliency"
DATA: dict[str, Any] = {"photos": "p", "maps": dict.fromkeys(("mc", "hs", "dsr", "rbd"), "s")}


def _read(name: str) -> SaliencyConfig:
    return validate(SaliencyConfig, {**read_yaml(RECIPES / name), **DATA}, name)


def test_there_are_no_others() -> None:
    assert {path.name for path in RECIPES.iterdir()} == {"deepusps2.yaml", "small.yaml", "trunk.yaml"}


def test_the_papers() -> None:
    """Appendix A.2, and where it says nothing, DeepUSPS's program."""
    config = _read("deepusps2.yaml")
    assert (config.trunk, config.side, config.batch_size, config.accumulate) == ("drn_d_105", 432, 20, 1)
    assert config.refine.lr == (6e-6, 1.2e-5, 3e-5)
    assert (config.refine.epochs, config.refine.beta2, config.refine.decay) == (25, 1.0, 0.7)
    assert (config.fuse.lr, config.fuse.epochs, config.fuse.beta2) == (1e-4, 200, 4.0)
    assert config.thresholds == {"mc": 0.31, "hs": 0.36, "dsr": 0.23, "rbd": 0.25}
    assert config.head_std == 1.0


def test_the_small_ones() -> None:
    """Its trunk is the one that BYOL's small recipe trains."""
    config = _read("small.yaml")
    assert (config.side, config.head_std, config.thresholds) == (128, 0.01, {})
    trunk = validate(
        RunConfig,
        {**(values := read_yaml(RECIPES / "trunk.yaml")), "data": {**values["data"], "shards": "s"}},
        "t",
    )
    assert trunk.backbone == config.trunk == "drn_d_22_narrow"
    assert (trunk.method.name, trunk.data.background.kind) == ("byol", "none")
