"""Shards -> samples. The photo, its mask, its tile and its label come from one sequential read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

from dali_bgaug.graph.context import Context
from dali_bgaug.shards import EXTENSIONS, Manifest

READER = "reader"


class Source(NamedTuple):
    """What a graph starts from."""

    context: Context
    sample: dict[str, DataNode]
    """Encoded components by extension, uint8 [bytes], and `shape` (`with_header`), all on the CPU."""
    mask_size: int
    """Side of the masks in pixels."""
    with_sources: bool = False
    """Whether batches also hold what views were made from."""


def read(
    context: Context,
    folder: Path,
    manifest: Manifest,
    components: list[str],
    world_size: int = 1,
    *,
    shuffle_buffer: int = 4096,
    mmap: bool = True,
    depth: int = 2,
) -> dict[str, DataNode]:
    """The named components (of jpg, mask, tile.jpg, cls) as uint8 [bytes], on the CPU.

    Every rank reads its own n-th of the samples, padded to whole batches with the share's last sample:
    another n-th each epoch, the shards reordered every epoch. Without a shuffle buffer (0) it reads always
    the same n-th in the order of the shards.

    Args:
        context: seeds and rank.
        folder, manifest: the data set.
        components: what to read.
        world_size: ranks that share the samples.
        shuffle_buffer: samples held (encoded) to draw from.
        mmap: map shards into memory.
        depth: batches the reader keeps ahead.
    """
    unknown = set(components) - set(EXTENSIONS)
    assert not unknown, unknown
    order = {"random_shuffle": False, "stick_to_shard": True}
    if shuffle_buffer:
        order = {
            "random_shuffle": True,
            "initial_fill": min(shuffle_buffer, max(1, manifest.samples // world_size)),
            "shuffle_after_epoch": True,
            "shuffle_after_epoch_seed": context.seed_of("epoch", rank=0),  # the same on every rank
        }
    nodes = fn.readers.webdataset(
        name=READER,
        paths=[str(folder / shard.name) for shard in manifest.shards],
        index_paths=[str(folder / shard.index) for shard in manifest.shards],
        ext=components,
        missing_component_behavior="error",
        shard_id=context.rank,
        num_shards=world_size,
        pad_last_batch=True,
        dont_use_mmap=not mmap,
        prefetch_queue_depth=depth,
        seed=context.seed_of("shuffle"),
        **order,
    )
    return dict(zip(components, nodes if len(components) > 1 else [nodes]))


def with_header(context: Context, photo: DataNode) -> dict[str, DataNode]:
    """The same photos as `jpg`, once all their headers could be read, and what these say as `shape`, int64
    [3]: height and width of the photo as decoded (EXIF orientation applied), channels.

    The decoder of DALI 2.4 ends the process (a segmentation fault) where it meets a header that it cannot
    read, and nobody learns which photo that was; looking for the photo's size fails with an error. Photos
    take their own places anew, by numbers that are not there before.
    """
    shape = fn.peek_image_shape(photo)
    [place] = context.of_batch(_places, shape, outputs=1)
    return {"jpg": fn.permute_batch(photo, indices=place[0]), "shape": shape}


def _places(_: int, shapes: list[np.ndarray]) -> tuple[np.ndarray]:
    return (np.arange(len(shapes), dtype=np.int32)[:, None],)
