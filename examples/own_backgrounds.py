"""Backgrounds made elsewhere, by an in-painting model say, in place of tiled ones: BG_Random with them.

    python examples/own_backgrounds.py --photos PHOTOS --backgrounds TREE --out out/own [--masks MASKS]

For PHOTOS/cat/1.jpg the tree has cat/1.png (or JPEG, WebP, ...) of the photo's shape: the background that
the photo lends; one without lends none. The tools run are those of `make masks tiles shards` with `TILES=`.
The end is OUT/views.png, a batch whose backgrounds are all replaced.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from torchvision.utils import save_image

from dali_bgaug.errors import run_program
from pipelines import LoaderConfig, build_loader


def run_tool(name: str, *words: object) -> None:
    """`python -m tools.NAME …`; what it prints says what went wrong."""
    if subprocess.run([sys.executable, "-m", f"tools.{name}", *map(str, words)], check=False).returncode:
        sys.exit(f"error: tools.{name} failed")


def main(photos: Path, masks: Path | None, backgrounds: Path, out: Path, batch_size: int) -> None:
    """Pack, load a batch of MoCo-v2's views with BG_Random, and write an image of it."""
    mask_store, tile_store, shards = out / "masks", out / "tiles", out / "shards"
    detector = ["--masks", masks] if masks else ["--detector", "rbd"]
    run_tool("masks", "--photos", photos, *detector, "--out", mask_store)
    run_tool("tiles", "--masks", mask_store, "--import", backgrounds, "--out", tile_store)
    run_tool("shards", "--photos", photos, "--masks", mask_store, "--tiles", tile_store, "--out", shards)
    config = LoaderConfig(
        shards=shards,
        batch_size=batch_size,
        crop={"fg_min": 0.5},
        photometric={"jitter_p": 0, "grey_p": 0, "blur_p": 0},
        # tiles: refuse shards that keep tiled backgrounds. donor: by default (full) a lent background gets
        # colours of its own, like a view.
        background={"kind": "random", "p_pos": 1.0, "tiles": "pixels", "donor": "crop"},
    )
    with build_loader(config) as loader:
        batch = {name: tensor.cpu() for name, tensor in next(iter(loader)).items()}
    replaced = batch["replaced"]  # bool [N, 2]: of query and key
    print(f"{int(replaced.sum())} of {replaced.numel()} views have a background of {backgrounds}")
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (config.normalise.mean, config.normalise.std)
    )
    views = torch.cat([batch["query"], batch["key"]]) * std + mean
    save_image(views, out / "views.png", nrow=len(replaced), padding=0)
    print(f"{out / 'views.png'}: queries above, their keys below")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--photos", type=Path, required=True, help="JPEGs in class folders")
    parser.add_argument("--masks", type=Path, help="masks made elsewhere, in a parallel tree")
    parser.add_argument("--backgrounds", type=Path, required=True, help="images in a parallel tree")
    parser.add_argument("--out", type=Path, default=Path("out/own"))
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    run_program(lambda: main(**vars(args)), "the same command does the rest")
