"""A small training of a saliency network: scenes with a disc, stores of two voters, a recipe of seconds."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.config import validate
from dali_bgaug.errors import run_program
from train.saliency.config import SaliencyConfig
from train.saliency.training import train

SIDE = 64


def write_store(folder: Path, keys: list[str], maps: np.ndarray, source: str = "s") -> None:
    """A mask store of one file. maps: uint8 [N, 64, 64]."""
    count = len(keys)
    entries = stores.Entries(
        keys=keys,
        box=np.tile(np.int32([0, 0, 1, 1]), (count, 1)),
        size=np.full((count, 2), SIDE, np.int32),
        flags=np.zeros(count, np.uint8),
        bytes=np.ones(count, np.int64),
        left_out=[],
        options={},
        source=source,
        listing="l",
    )
    stores.write_masks(folder / stores.file_name(0, 1), maps, entries)


def write_scenes(folder: Path, count: int = 13) -> dict[str, Any]:
    """Photos of 80 x 64 pixels, each with a bright disc; voters `near` (it, blurred) and `far` (shifted).

    Returns the values of a SaliencyConfig.
    """
    rng = np.random.default_rng(0)
    (folder / "photos" / "a").mkdir(parents=True)
    keys, near, far = [], [], []
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(count):
        centre, radius = rng.uniform(20, 44, 2), rng.uniform(8, 14)
        distance = np.hypot(y - centre[0], x - centre[1]) - radius
        image = rng.integers(0, 60, (SIDE, SIDE, 3))
        image[distance < 0] += np.array([180, 120, 40])
        keys.append(f"a/{number:02d}.png")
        Image.fromarray(image.astype(np.uint8)).resize((80, SIDE)).save(folder / "photos" / keys[-1])
        soft = 255 / (1 + np.exp(distance / 2))
        near.append(soft)
        far.append(np.roll(soft, 6, 1))
    for voter, maps in (("near", near), ("far", far)):
        write_store(folder / voter, keys, np.stack(maps).astype(np.uint8), voter)
    return {
        "photos": str(folder / "photos"),
        "maps": {"near": str(folder / "near"), "far": str(folder / "far")},
        "trunk": "resnet10_narrow",
        "side": 32,
        "batch_size": 4,
        "refine": {"lr": [1e-3, 1e-3], "epochs": 3},
        "fuse": {"lr": 1e-3, "epochs": 2, "beta2": 1.0},
        "device": "cpu",
        "workers": 1,
    }


def read_config(values: dict[str, Any], **changes: Any) -> SaliencyConfig:
    """The config of these values."""
    return validate(SaliencyConfig, {**values, **changes}, "test")


def train_rank(values: dict[str, Any], out: Path) -> None:
    """What a rank of a training does; for `tests.helpers.processes.launch`."""
    run_program(lambda: train(read_config(values), out), "")
