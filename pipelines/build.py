"""Assembly of a loader: config -> reader, recipe and renderer -> loader."""

import logging
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, backend, pipeline_def

from dali_bgaug.batches import BatchMaker
from dali_bgaug.dataset import Dataset, open_data, open_packed
from dali_bgaug.errors import UserError
from dali_bgaug.journal import Journal
from dali_bgaug.loader import EpochShard, Loader
from dali_bgaug.reading import (
    Reader,
    ReaderOptions,
    Seeds,
    black_pixel,
    choose_tiles,
    count_iterations,
    decode,
    pool_photos,
    with_header,
)
from dali_bgaug.views.describe import describe
from dali_bgaug.views.plan import Recipe, batch_backgrounds
from dali_bgaug.views.render import Renderer
from pipelines.config import FREE, LoaderConfig, components, require_masks

log = logging.getLogger("dali_bgaug")


def build_loader(
    config: LoaderConfig,
    rank: int = 0,
    world_size: int = 1,
    *,
    data: Dataset | None = None,
    device_id: int | None = None,
    with_sources: bool = False,
) -> Loader:
    """A loader of this rank's part of the data set.

    Args:
        config: what to read and which views to make.
        rank, world_size: this process among all that train together.
        data: the set, where it is not what `config.shards` names; for evaluation any (`list_photos`).
        device_id: the GPU, by default the local rank's; ignored on the CPU.
        with_sources: batches also hold what views were made from (for contact sheets).

    Raises:
        UserError: shards missing or changed, a batch that the ranks cannot share, too few photos, no GPU.
    """
    if config.batch_size % world_size:
        raise UserError(
            f"data.batch_size={config.batch_size}: must be divisible by the number of ranks, {world_size}"
        )
    complete = config.method.complete
    data = data or (open_data if complete else open_packed)(config.shards, config.verify)
    if with_sources and not data.mask_size:
        raise UserError(
            f"data.shards={config.shards}: there are no masks to show; give shards that have them"
        )
    require_masks(config, data.mask_size)
    epoch_shard = EpochShard(data.samples, config.batch_size // world_size, rank, world_size, complete)
    check_epoch_shard(config, data, epoch_shard)
    device_id = choose_device(config.device, device_id)
    if device_id is None:
        pool_photos()
    if data.open_files and not config.mmap:
        allow_open_files(data.open_files, config.shards)
    journal = Journal(data, config.prefetch, config.decoding)
    recipe = loader_recipe(config, with_sources)
    if rank == 0:
        log.info(describe(recipe))
    build = partial(build_maker, config, recipe, data, epoch_shard, journal, device_id)
    identity = {
        "data": data.digest,
        "config": config.model_dump_json(exclude=FREE),
        "device": "cpu" if device_id is None else "gpu",
    }
    return Loader(build, epoch_shard, identity, journal, config.prefetch)


def allow_open_files(shards: int, folder: Path) -> None:
    """Raise this process's limit of open files, if need be: without `mmap` DALI holds every shard open.

    Raises:
        UserError: the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) + shards + SPARE_FILES
    if soft != resource.RLIM_INFINITY and wanted > soft:
        if hard != resource.RLIM_INFINITY and wanted > hard:
            raise UserError(
                f"data.mmap=false: the {shards} shards of {folder} are held open, with what else is open "
                f"{wanted} files, and this process may open {hard}: raise that (ulimit -Hn), take "
                "data.mmap=true, or pack larger shards (--shard-mb, --per-shard)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


SPARE_FILES = 100
"""For whatever else opens some: checkpoints, other loaders' threads, sockets."""


def loader_recipe(config: LoaderConfig, with_sources: bool = False) -> Recipe:
    """The recipe of a loader's views."""
    return Recipe(config.single_views, config.background, config.normalise, config.resize, with_sources)


def check_epoch_shard(config: LoaderConfig, data: Dataset, epoch_shard: EpochShard) -> None:
    """Refuse an epoch shard that its loader could not make a batch of."""
    ranks = epoch_shard.world_size
    if data.samples < ranks or len(epoch_shard) == 0:
        raise UserError(
            f"data.batch_size={config.batch_size}: the data set {config.shards} has {data.samples} photos; "
            f"on {ranks} rank(s) a batch may have {data.samples // ranks * ranks} at most"
        )
    if config.background.uses_tiles and epoch_shard.batch_size < 2:
        raise UserError(
            f"data.batch_size={config.batch_size}: a rank needs two photos at least to swap backgrounds"
        )
    if config.background.uses_tiles and config.background.tiles not in (None, data.tiles):
        raise UserError(
            f"data.background.tiles={config.background.tiles}: the shards {config.shards} keep "
            f"{data.tiles}; leave it out, or make tiles and shards anew (docs/offline.md)"
        )
    if config.background.uses_tiles and data.donors < 2:
        raise UserError(
            f"data.shards={config.shards}: {data.donors} photos can lend a background, two are needed; "
            "look at the masks (all empty, or without a strip of background beside the foreground?)"
        )


def choose_device(device: str, device_id: int | None) -> int | None:
    """The GPU's number, or None for the CPU."""
    if device == "cpu":
        return None
    count = backend.GetCUDADeviceCount()
    if count == 0:
        if device == "gpu":
            raise UserError("data.device=gpu: no GPU found; use data.device=cpu, or auto")
        return None
    number = int(os.environ.get("LOCAL_RANK", "0")) if device_id is None else device_id
    if device_id is None and count == 1:  # a scheduler that shows each task its own (--gpus-per-task=1)
        number = 0
    if number >= count:
        raise UserError(f"this process wants GPU {number}, there are {count}; start one process a GPU")
    return number


def build_maker(
    config: LoaderConfig,
    recipe: Recipe,
    data: Dataset,
    epoch_shard: EpochShard,
    journal: Journal,
    device_id: int | None,
    origin: int = 0,
    checkpoint: bytes | None = None,
) -> BatchMaker:
    """The maker of one rank's batches, from the epoch `origin` on or from a reader's checkpoint."""
    seeds = Seeds(config.seed, epoch_shard.rank, origin)
    strength = partial(_strength, config.background.warmup_epochs, epoch_shard.padded_batches, origin)
    device = torch.device("cpu") if device_id is None else torch.device("cuda", device_id)
    renderer = choose_renderer(device, config)
    pipeline, names = define_pipeline(
        config, recipe, data, epoch_shard, seeds, strength, journal, device_id, checkpoint
    )
    return BatchMaker(Reader(pipeline, names, len(data.classes)), recipe, renderer, seeds, strength, device)


def choose_renderer(device: torch.device, config: LoaderConfig) -> Renderer:
    """The renderer of this device."""
    if device.type == "cpu":
        from dali_bgaug.views.cpu import CpuRenderer  # a GPU needs no Numba

        return CpuRenderer(config.threads or default_threads(), config.half)
    from dali_bgaug.views.gpu import GpuRenderer

    return GpuRenderer(device, config.half)


def define_pipeline(
    config: LoaderConfig,
    recipe: Recipe,
    data: Dataset,
    epoch_shard: EpochShard,
    seeds: Seeds,
    strength: Callable[[int], float],
    journal: Journal,
    device_id: int | None,
    checkpoint: bytes | None = None,
) -> tuple[Pipeline, list[str]]:
    """Define the DALI pipeline that reads and decodes an epoch shard, and its outputs' names; nothing is
    built or read yet."""
    names: list[str] = []
    wanted = components(config, data.tiles, everything=recipe.sources)

    def needed(iteration: int, lends: np.ndarray) -> np.ndarray:
        """The tiles that this batch's backgrounds are made of."""
        coins = batch_backgrounds(
            recipe, lambda name: seeds.generator(name, iteration), lends, strength(iteration)
        )
        return lends if recipe.sources else np.isin(np.arange(len(lends)), coins.donor)

    @pipeline_def(
        batch_size=epoch_shard.batch_size,
        num_threads=config.threads or default_threads(),
        device_id=device_id,
        seed=seeds.of_dali("pipeline"),
        prefetch_queue_depth=config.prefetch,
        # DALI then rewrites this function and all that it calls, for a second.
        enable_conditionals="tile.jpg" in wanted,
        enable_checkpointing=True,
        checkpoint=checkpoint,
    )
    def define() -> tuple[Any, ...]:
        buffer = 0 if epoch_shard.complete else config.shuffle_buffer
        options = ReaderOptions(seeds, epoch_shard.world_size, buffer, config.mmap, config.reader_depth)
        sample = data.read(wanted, options)
        journal.watch(sample["jpg"])
        safe = data.is_looked_into or not config.decoding.upright
        photo = with_header(sample["jpg"], data.max_pixels, safe, config.decoding.least)
        outputs = {
            "photo": decode(photo, config.hw_decoder_load, config.preallocate, config.decoding),
            "cls": sample["cls"],
            "iteration": count_iterations(epoch_shard.batch_size),
        }
        if "mask" in sample:
            outputs["mask"] = sample["mask"] if device_id is None else sample["mask"].gpu()
        if "tile" in sample:
            outputs["tile"] = sample["tile"]
        if "tile.jpg" in sample:
            used, outputs["lends"] = choose_tiles(outputs["iteration"], sample["tile.jpg"], needed)
            if used:
                tile = decode(sample["tile.jpg"], config.hw_decoder_load, config.preallocate)
            else:
                tile = black_pixel()
            outputs["tile.jpg"] = tile
        names[:] = outputs
        return tuple(outputs.values())

    return define(), names


def _strength(warmup_epochs: int, batches: int, origin: int, iteration: int) -> float:
    """The background warm-up: rises linearly from 0 to 1."""
    return min(1.0, (origin + iteration / batches) / warmup_epochs) if warmup_epochs else 1.0


def default_threads() -> int:
    """The CPUs this process may use, shared out among the ranks of this machine."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // ranks)
