"""The command line: `python -m train.saliency`, or `torchrun --nproc-per-node=N -m train.saliency`."""

from typing import TYPE_CHECKING

from dali_bgaug.errors import run_program
from train.recipe_program import recipe_program

if TYPE_CHECKING:
    from train.recipe_program import Loaded
    from train.saliency.config import SaliencyConfig


def _load() -> "Loaded[SaliencyConfig]":
    # Workers import this module too, and need no torch.
    from train.saliency.config import SaliencyConfig
    from train.saliency.training import train

    return SaliencyConfig, train


def main() -> None:
    """Read the recipe, print it or train."""
    recipe_program(
        "train.saliency",
        "Train a saliency network without labels.",
        _load,
        recipe="configs/saliency/small.yaml",
        words="photos=DIR maps.rbd=STORE …",
    )


if __name__ == "__main__":
    run_program(main, "the same command goes on from the last epoch")
