"""Draw a contact sheet: what each photo of a batch becomes. One row a photo: photo, mask, tile, views.

    python -m tools.views --config configs/moco_v2_demo.yaml [key=value …] --out out/views.png

The crop boxes of the views are drawn on the photo, each in its view's colour; a view whose background was
replaced, and a negative that has a view's background, have a frame of that colour.
"""

import itertools
import logging
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.patches import Rectangle

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import UserError
from dali_bgaug.figures import plt, save
from pipelines import LoaderConfig, build_loader
from tools.cli import run, tool_parser

COLOURS = [*matplotlib.colormaps["tab10"].colors]
SOURCES = ("photo", "mask", "tile")


def draw_views(config: LoaderConfig, path: Path, rows: int = 8) -> None:
    """Write the sheet of the first batch as PNG; rows with most replaced backgrounds come first."""
    with build_loader(config, with_sources=True) as loader:
        batch = {name: tensor.cpu() for name, tensor in next(iter(loader)).items()}
    changed = _changed(config, batch)
    order = torch.argsort(sum(changed.values()), descending=True, stable=True)[:rows]
    names = [name for name in (*SOURCES, *changed) if name in batch]
    shape, size = (len(order), len(names)), (1.6 * len(names), 1.6 * len(order))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="compressed")
    for row, sample in enumerate(order.tolist()):
        for axis, name in zip(axes[row], names, strict=True):
            image = batch[name][sample]
            axis.imshow(image.numpy() if name in SOURCES else _denormalise(image, config))
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(name, fontsize=9)
            if name == "photo" and "crop_box" in batch:
                _draw_crop_boxes(axis, image.shape, batch["crop_box"][sample].numpy())
            if name in changed:
                colour = COLOURS[list(changed).index(name) % len(COLOURS)]
                for spine in axis.spines.values():
                    spine.set(color=colour if changed[name][sample] else "none", linewidth=3)
    background, chosen = config.background, ""
    if background.kind != "none":
        chosen = f", those with most replaced backgrounds (p_pos={background.p_pos:g})"
    figure.suptitle(f"{len(order)} of a batch's {len(batch['label'])} photos{chosen}", fontsize=9)
    save(figure, path, dpi=100)


def _changed(config: LoaderConfig, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The views to draw, and for each whether its background was replaced or matched, [N]."""
    count = len(batch["label"])
    changed = {}
    for number, name in enumerate(config.single_views):
        changed[name] = batch["replaced"][:, number] if "replaced" in batch else torch.zeros(count)
    if "matched" in batch:
        negatives = [name for name in batch if name.startswith("negative")]
        matched = batch["matched"].reshape(count, -1)
        changed |= {name: matched[:, number] for number, name in enumerate(negatives)}
    return {name: flags.int() for name, flags in changed.items()}


def _denormalise(view: torch.Tensor, config: LoaderConfig) -> np.ndarray:
    """Float [..., 3, H, W] -> values in [0, 1], [H, W, 3]; several images side by side, two in a row."""
    pixels = view.movedim(-3, -1).float().numpy()
    if pixels.ndim == 4:
        pairs = [np.concatenate([*pixels[at : at + 2]], axis=1) for at in range(0, len(pixels), 2)]
        pixels = np.concatenate(pairs)
    return (pixels * config.normalise.std + config.normalise.mean).clip(0, 1)


def _draw_crop_boxes(axis: plt.Axes, shape: torch.Size, crop_boxes: np.ndarray) -> None:
    height, width = shape[:2]
    for (y0, x0, y1, x1), colour in zip(crop_boxes, itertools.cycle(COLOURS), strict=False):
        corner, size = (x0 * width - 0.5, y0 * height - 0.5), ((x1 - x0) * width, (y1 - y0) * height)
        axis.add_patch(Rectangle(corner, *size, fill=False, color=colour, linewidth=1.5))


def main() -> None:
    parser = tool_parser("tools.views", __doc__)
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/moco_v2_demo.yaml"), help="(%(default)s)")
    add("--out", type=Path, default=Path("out/views.png"), help="the figure (%(default)s)")
    add("--rows", type=int, default=8, help="photos (%(default)s)")
    add("overrides", nargs="*", metavar="key=value", help="values of the config to override")
    args = parser.parse_intermixed_args()
    values = override(read_yaml(args.config), args.overrides).get("data")
    if values is None:
        raise UserError(f"{args.config}: has no 'data' section; give a recipe of configs/")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("dali_bgaug").setLevel(logging.INFO)  # what each view goes through
    source = " ".join([str(args.config), *args.overrides])
    draw_views(validate(LoaderConfig, values, f"{source}: data"), args.out, args.rows)
    print(args.out)


if __name__ == "__main__":
    run(main)
