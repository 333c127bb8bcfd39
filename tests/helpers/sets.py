"""Small sets and backbones whose evaluation has a known outcome."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.helpers.runs import read_recipe, write_recipe
from tests.helpers.shards import pack, save
from train.loop import Loop
from train.signals import StopRequest

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (210, 50, 40)}


def coloured_set(folder: Path, photos: int = 36) -> Path:
    """Shards of photos of 64 x 64 whose class is their colour, before a grey border: any network tells them
    apart."""
    for number in range(photos):
        name = list(COLOURS)[number % 3]
        photo = np.full((64, 64, 3), 60 + number, np.uint8)
        mask = np.zeros((64, 64), bool)
        mask[12:52, 12:52] = True
        photo[mask] = np.clip(np.array(COLOURS[name]) + number % 7 * 4, 0, 255)
        save(folder, f"{name}/{number:02d}", photo, mask)
    return pack(folder)


def untrained_run(folder: Path, shards: Path, *words: str) -> Path:
    """The checkpoint of a run (supervised by default) that has done no step: a backbone drawn at random."""
    recipe = write_recipe(folder, shards, "moco_v2")
    with Loop(read_recipe(recipe, *words), folder / "run", False, torch.device("cpu"), StopRequest()) as loop:
        loop.checkpointer.save(loop.trainer)
    return folder / "run"


def image(path: Path, colour: tuple[int, int, int]) -> None:
    """A PNG of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((48, 40, 3), colour, np.uint8)).save(path)
