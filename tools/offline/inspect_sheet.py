"""The contact sheet of a store or of shards."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from dali_bgaug.figures import plt, save
from dali_bgaug.tiles import fill, fits

COLUMNS = 6
LABEL = 24  # characters of a photo's name


class Tile(NamedTuple):
    """One place of the sheet."""

    name: str
    image: np.ndarray | bytes
    """A saliency map, uint8 [S, S], or a JPEG."""
    box: np.ndarray | None = None
    """The foreground's box as shares of the sides, float [4]."""
    mask: np.ndarray | None = None
    """bool [S, S], drawn as an outline over the photo."""
    lends: bool = False
    """Whether `tile` is drawn beside it,"""
    tile: bytes | np.ndarray | None = None
    """the photo's tiled background, a JPEG or geometry; None if it must not be used."""


def draw_sheet(folder: Path, tiles: list[Tile], shares: list[float] | None = None) -> Path:
    """Write FOLDER-inspect.png: the tiles, and below them how much of the photos is foreground."""
    out = folder.with_name(f"{folder.name}-inspect.png")
    rows = -(-len(tiles) // COLUMNS)
    height = [1.0] * rows + ([1.0] if shares else [])
    figure = plt.figure(figsize=(2.2 * COLUMNS, 1.9 * len(height)), layout="constrained")
    grid = figure.add_gridspec(len(height), COLUMNS, height_ratios=height)
    for number, tile in enumerate(tiles):
        _draw(figure.add_subplot(grid[divmod(number, COLUMNS)]), tile)
    if shares:
        axis = figure.add_subplot(grid[rows, :])
        axis.hist(shares, bins=50, range=(0, 1))
        axis.set(xlabel="foreground's share of the photo", ylabel="photos", xlim=(0, 1))
    figure.suptitle(str(folder))
    save(figure, out, dpi=90)
    return out


def _draw(axis: plt.Axes, tile: Tile) -> None:
    axis.set_axis_off()
    axis.set_title(tile.name[-LABEL:], fontsize=6, pad=2)
    if isinstance(tile.image, np.ndarray):
        axis.imshow(tile.image, cmap="gray", vmin=0, vmax=255)
        side = len(tile.image)
        x0, y0, x1, y1 = tile.box * side
        corner = (x0 - 0.5, y0 - 0.5)
        axis.add_patch(Rectangle(corner, x1 - x0, y1 - y0, fill=False, color="tab:orange", linewidth=1))
        return
    photo = _decode(tile.image)
    if tile.mask is not None and tile.mask.any() and not tile.mask.all():
        height, width = photo.shape[:2]
        centres = (np.arange(len(tile.mask)) + 0.5) / len(tile.mask)
        line = {"levels": [0.5], "colors": "tab:orange", "linewidths": 1}
        axis.contour(centres * width, centres * height, tile.mask, **line)
    if tile.lends:
        photo = np.concatenate([photo, _beside(photo, tile.tile)], axis=1)
    axis.imshow(photo)


def _beside(photo: np.ndarray, tile: bytes | np.ndarray | None) -> np.ndarray:
    """The tiled background at the photo's size, or grey where there is none."""
    if isinstance(tile, bytes):
        return np.asarray(Image.fromarray(_decode(tile)).resize(photo.shape[1::-1]))
    if tile is None or not fits(tile[None], np.array([photo.shape[:2]]))[0]:  # a damaged photo's
        return np.full_like(photo, 160)
    return fill(photo, tile)


def _decode(data: bytes) -> np.ndarray:
    """Pixels; a damaged image is a white square: to find damage is what --verify is for."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # PIL raises nearly anything on a damaged file
        return np.full((64, 64, 3), 255, np.uint8)
