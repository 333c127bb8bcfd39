"""Shards -> samples. The photo, its mask, its tile and its label come from one sequential read."""

from pathlib import Path

from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from pydantic import Field

from dali_bgaug.config import Options
from dali_bgaug.graph.context import Context
from dali_bgaug.shards import EXTENSIONS, Manifest

READER = "reader"


class ReaderOptions(Options):
    """How shards are read."""

    shuffle_buffer: int = Field(default=4096, ge=1)
    """Samples held (encoded) to draw from. Shards are globally shuffled when packed; this shuffles anew."""
    mmap: bool = True
    """Map shards into memory; turn off on network file systems."""
    depth: int = Field(default=2, ge=1)
    """Batches the reader keeps ahead."""


def read(
    context: Context,
    folder: Path,
    manifest: Manifest,
    options: ReaderOptions,
    world_size: int,
    components: list[str],
) -> dict[str, DataNode]:
    """The named components (of jpg, mask, tile.jpg, cls) as uint8 [bytes], on the CPU.

    Every rank reads its own n-th of the samples, another n-th each epoch, shards reordered every epoch.
    Shares are padded to whole batches with the share's last sample; the loader drops such batches.
    """
    unknown = set(components) - set(EXTENSIONS)
    assert not unknown, unknown
    nodes = fn.readers.webdataset(
        name=READER,
        paths=[str(folder / shard.name) for shard in manifest.shards],
        index_paths=[str(folder / shard.index) for shard in manifest.shards],
        ext=components,
        missing_component_behavior="error",
        shard_id=context.rank,
        num_shards=world_size,
        random_shuffle=True,
        initial_fill=min(options.shuffle_buffer, max(1, manifest.samples // world_size)),
        shuffle_after_epoch=True,
        shuffle_after_epoch_seed=context.seed_of("epoch", rank=0),  # the same on every rank
        pad_last_batch=True,
        dont_use_mmap=not options.mmap,
        prefetch_queue_depth=options.depth,
        seed=context.seed_of("shuffle"),
    )
    return dict(zip(components, nodes if len(components) > 1 else [nodes]))
