"""What both renderers take and give, and where everything of a batch lies in memory."""

from typing import NamedTuple, Protocol

import numpy as np
import torch

from dali_bgaug.views.table import NOTHING, OTHER, PHOTO, PICTURE, PLACE, TILE, Table


class Images(NamedTuple):
    """Decoded images of a batch, uint8 [height, width, 3] each, where the renderer can read them."""

    addresses: np.ndarray
    """int64 [N]."""
    sizes: np.ndarray
    """Heights and widths, int32 [N, 2]."""


Tiles = Images | np.ndarray
"""Tiled backgrounds of a batch: decoded, or as geometry int32 [N, 8] (`tiles.py`) of the photos."""


class Rendered(NamedTuple):
    """What a renderer made of a table."""

    pictures: dict[str, torch.Tensor]
    """By slot: float [N, size, size, 3], or [N, turns, size, size, 3]."""
    windows: torch.Tensor
    """float32 [J, 4]: `CHOSEN.window`."""
    put: torch.Tensor
    """bool [J]: whether a job got what was to lie behind it."""


class Renderer(Protocol):
    """Makes all pictures of a table."""

    def render(
        self, table: Table, photos: Images, tiles: Tiles | None, masks: torch.Tensor | None
    ) -> Rendered:
        """masks: bit-packed, uint8 [N, S * S / 8], on the renderer's device; None if no job looks at one."""
        ...

    def close(self) -> None:
        """Give back threads and memory."""
        ...


def scratch_places(table: Table) -> tuple[np.ndarray, int]:
    """Where pictures of no slot lie, one after another: their first values, int64 [J] (0 for all others),
    and how many values they take together."""
    values = np.where(table.jobs["slot"] < 0, 3 * table.jobs["size"].astype(np.int64) ** 2, 0)
    ends = np.cumsum(values)
    return np.where(values > 0, ends - values, 0), int(ends[-1])


def find_places(
    table: Table,
    photos: Images,
    tiles: Tiles | None,
    masks: torch.Tensor | None,
    pictures: list[torch.Tensor],
    scratch: torch.Tensor,
) -> np.ndarray:
    """table.PLACE of every job.

    Args:
        table: the jobs.
        photos, tiles, masks: see `Renderer.render`.
        pictures: the outputs, in the order of the table's slots.
        scratch: float32, for pictures of no slot (`scratch_places`).
    """
    jobs = table.jobs
    place = np.zeros(len(jobs), PLACE)
    start = np.array([picture.data_ptr() for picture in pictures], np.int64)
    item = np.array([picture.element_size() for picture in pictures], np.int64)
    size = jobs["size"].astype(np.int64)
    inside = start[jobs["slot"]] + item[jobs["slot"]] * jobs["row"] * 3 * size**2
    offset, _ = scratch_places(table)
    place["out"] = np.where(jobs["slot"] < 0, scratch.data_ptr() + 4 * offset, inside)
    for source, images in ((PHOTO, photos), (TILE, tiles)):
        mine = jobs["source"] == source
        if isinstance(images, np.ndarray):
            place["tiled"][mine] = images[jobs["sample"][mine]]
            images = photos
        if images is not None:
            place["pixels"][mine] = images.addresses[jobs["sample"][mine]]
            place["height"][mine], place["width"][mine] = images.sizes[jobs["sample"][mine]].T
    place["copied_to"] = -1
    copies = jobs["source"] == PICTURE
    place["is_copied"] = copies & (jobs["behind"] == NOTHING)
    for number in np.flatnonzero(place["is_copied"]):
        source = jobs["sample"][number]
        place["copied_to"][[number, source]] = place["copied_to"][source], number
    place["pixels"][copies] = place["out"][jobs["sample"][copies]]
    place["height"][copies] = place["width"][copies] = jobs["size"][copies]
    place["frame_height"], place["frame_width"] = photos.sizes[jobs["frame"]].T
    over = jobs["behind"] == OTHER
    place["behind"][over] = place["out"][jobs["other"][over]]
    if masks is not None:
        place["mask"] = masks.data_ptr() + jobs["frame"][jobs["mask_of"]].astype(np.int64) * masks.shape[1]
    return place
