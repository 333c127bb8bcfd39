"""The command line: `python -m train.detect`, or `torchrun --nproc-per-node=N -m train.detect`."""

from dali_bgaug.errors import run_program
from train.detect.config import DetectConfig
from train.detect.training import train
from train.recipe_program import recipe_program


def main() -> None:
    """Read the recipe, print it or train."""
    recipe_program(
        "train.detect",
        "Train a detector on a backbone, and test it.",
        lambda: (DetectConfig, train),
        recipe="configs/detect/voc.yaml",
        words="data=DIR init=RUN …",
    )


if __name__ == "__main__":
    run_program(main, "the same command goes on from the newest checkpoint")
