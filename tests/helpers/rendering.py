"""Render jobs on the CPU, without a loader."""

from collections.abc import Sequence
from contextlib import closing
from unittest import mock

import numpy as np
import torch

from dali_bgaug.shards import pack_mask
from dali_bgaug.views import cpu, table
from dali_bgaug.views.cpu import CpuRenderer
from dali_bgaug.views.render import Decoded, Rendered
from dali_bgaug.views.table import GREY, Slot, Table

Pixels = Sequence[np.ndarray]


def render(
    jobs: np.ndarray,
    photos: Pixels,
    masks: Pixels = (),
    tiles: Pixels | np.ndarray = (),
    *,
    donors: int = 0,
    copies: int = 0,
    crops: np.ndarray | None = None,
    half: bool = False,
    threads: int = 2,
) -> tuple[np.ndarray, Rendered]:
    """The image of every job, all of one size and one slot, [J, size, size, 3], and all that was rendered.

    tiles: decoded, or geometry int32 [J, 8]; donors, copies: how many jobs of the beginning and of the end
    are these; crops: crop boxes, instead of those that the jobs say.
    """
    jobs = jobs.copy()
    jobs["row"] = np.arange(len(jobs))
    [size] = np.unique(jobs["size"])
    whole = Table(
        jobs=jobs,
        donors=donors,
        views=len(jobs) - donors - copies,
        per_photo=1,
        slots=(Slot("image", int(size)),),
        replaced=np.zeros((len(jobs), 1), np.int32),
        matched=np.zeros((len(jobs), 0), np.int32),
    )
    packed = torch.from_numpy(pack(masks)) if len(masks) else None
    with (
        closing(CpuRenderer(threads, half)) as renderer,
        mock.patch.object(cpu, "choose", cpu.choose if crops is None else lambda *_: crops),
    ):
        if not isinstance(tiles, np.ndarray):
            tiles = images(tiles) if len(tiles) else None
        made = renderer.render(whole, images(photos), tiles, packed)
    return made.images["image"].numpy(), made


def render_masks(jobs: np.ndarray, changes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask as each job's image has it, distorted by these affine maps: bool [J, size, size]."""
    jobs, crops = jobs.copy(), np.zeros(len(jobs), table.CROP)
    jobs["background"], jobs["mask_of"] = GREY, np.arange(len(jobs))
    crops["crop_box"], crops["affine"] = [0, 0, *mask.shape], changes
    white = np.full((*mask.shape, 3), 255, np.uint8)
    return render(jobs, [white], [mask], crops=crops)[0][..., 0] == 255


PHOTOS = {"500x375": (500, 375), "1000x200": (1000, 200)}


def images(pixels: Pixels) -> Decoded:
    addresses = np.array([one.ctypes.data for one in pixels])
    return Decoded(addresses, np.array([one.shape[:2] for one in pixels], np.int32))


def pack(masks: Pixels) -> np.ndarray:
    return np.stack([np.frombuffer(pack_mask(mask), np.uint8) for mask in masks])
