"""Renderers: what both take and give, and the addresses of everything of a batch."""

from typing import NamedTuple, Protocol

import numpy as np
import torch

from dali_bgaug.views.table import ADDRESS, IMAGE, KEPT, PHOTO, RENDERED, TILE, Table


class Decoded(NamedTuple):
    """Decoded images of a batch, uint8 [height, width, 3] each, where the renderer can read them."""

    addresses: np.ndarray
    """int64 [N]."""
    sizes: np.ndarray
    """Heights and widths, int32 [N, 2]."""


Tiles = Decoded | np.ndarray
"""Tiled backgrounds of a batch: decoded, or as geometry int32 [N, 8] (`tiles.py`) of the photos."""


class Rendered(NamedTuple):
    """The images of a table, and what its renderer decided."""

    images: dict[str, torch.Tensor]
    """By slot: float [N, size, size, 3], or [N, turns, size, size, 3]."""
    crop_boxes: torch.Tensor
    """float32 [J, 4]: `CROP.crop_box`."""
    composited: torch.Tensor
    """bool [J]: whether a job got the background it was to have."""


class Renderer(Protocol):
    """Makes all images of a table."""

    def render(
        self, table: Table, photos: Decoded, tiles: Tiles | None, masks: torch.Tensor | None
    ) -> Rendered:
        """masks: bit-packed, uint8 [N, S * S / 8], on the renderer's device; None if no job looks at one."""
        ...

    def close(self) -> None:
        """Give back threads and memory."""
        ...


def scratch_offsets(table: Table) -> tuple[np.ndarray, int]:
    """Where images of no slot lie, one after another: their first values, int64 [J] (0 for all others),
    and how many values they take together."""
    values = np.where(table.jobs["slot"] < 0, 3 * table.jobs["size"].astype(np.int64) ** 2, 0)
    ends = np.cumsum(values)
    return np.where(values > 0, ends - values, 0), int(ends[-1])


def find_addresses(
    table: Table,
    photos: Decoded,
    tiles: Tiles | None,
    masks: torch.Tensor | None,
    images: list[torch.Tensor],
    scratch: torch.Tensor,
) -> np.ndarray:
    """table.ADDRESS of every job.

    Args:
        table: the jobs.
        photos, tiles, masks: see `Renderer.render`.
        images: the outputs, in the order of the table's slots.
        scratch: float32, for images of no slot (`scratch_offsets`).
    """
    jobs = table.jobs
    addresses = np.zeros(len(jobs), ADDRESS)
    start = np.array([image.data_ptr() for image in images], np.int64)
    item = np.array([image.element_size() for image in images], np.int64)
    size = jobs["size"].astype(np.int64)
    inside = start[jobs["slot"]] + item[jobs["slot"]] * jobs["row"] * 3 * size**2
    offset, _ = scratch_offsets(table)
    addresses["out"] = np.where(jobs["slot"] < 0, scratch.data_ptr() + 4 * offset, inside)
    for source, decoded in ((PHOTO, photos), (TILE, tiles)):
        mine = jobs["source"] == source
        if isinstance(decoded, np.ndarray):
            addresses["tiled"][mine] = decoded[jobs["sample"][mine]]
            decoded = photos
        if decoded is not None:
            addresses["pixels"][mine] = decoded.addresses[jobs["sample"][mine]]
            addresses["height"][mine], addresses["width"][mine] = decoded.sizes[jobs["sample"][mine]].T
    addresses["copied_to"] = -1
    copies = jobs["source"] == IMAGE
    addresses["is_copied"] = copies & (jobs["background"] == KEPT)
    _link_copies(addresses, jobs["sample"])
    addresses["pixels"][copies] = addresses["out"][jobs["sample"][copies]]
    addresses["height"][copies] = addresses["width"][copies] = jobs["size"][copies]
    addresses["frame_height"], addresses["frame_width"] = photos.sizes[jobs["frame"]].T
    over = jobs["background"] == RENDERED
    addresses["background"][over] = addresses["out"][jobs["background_job"][over]]
    if masks is not None:
        addresses["mask"] = (
            masks.data_ptr() + jobs["frame"][jobs["mask_of"]].astype(np.int64) * masks.shape[1]
        )
    return addresses


def _link_copies(addresses: np.ndarray, sources: np.ndarray) -> None:
    """Link each image to the last copy of it, and each copy to the one before it."""
    copies = np.flatnonzero(addresses["is_copied"])
    copies = copies[np.argsort(sources[copies], kind="stable")]
    its = sources[copies]
    follows = its[1:] == its[:-1]
    addresses["copied_to"][copies[1:][follows]] = copies[:-1][follows]
    last = np.append(~follows, True)[: len(copies)]
    addresses["copied_to"][its[last]] = copies[last]
