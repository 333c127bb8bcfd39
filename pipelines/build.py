"""Assembly of a loader: config -> reader, recipe and renderer -> loader."""

import logging
import math
import os
from functools import partial

import numpy as np
import torch
from nvidia.dali import backend

from dali_bgaug.batches import BatchMaker
from dali_bgaug.dataset import Dataset, PackedShards, open_data, open_packed
from dali_bgaug.errors import UserError
from dali_bgaug.fetching import Fetcher
from dali_bgaug.loader import Loader
from dali_bgaug.reading import Reader, ReaderOptions, pool_photos
from dali_bgaug.sampling import Draw, EpochShard, Sampler, Seeds
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
    opened, cache = open_data if complete else open_packed, config.cache_options
    data = data or opened(config.shards, config.verify, rank=rank, world_size=world_size, cache=cache)
    if with_sources and not data.mask_size:
        raise UserError(
            f"data.shards={config.shards}: there are no masks to show; give shards that have them"
        )
    require_masks(config, data.mask_size)
    epoch_shard = EpochShard(data.samples, config.batch_size // world_size, rank, world_size, complete)
    check_epoch_shard(config, data, epoch_shard)
    if isinstance(data, PackedShards) and data.is_remote:
        check_cache(config, data, epoch_shard)
    device_id = choose_device(config.device, device_id)
    if device_id is None:
        pool_photos()
    recipe = loader_recipe(config, with_sources)
    if rank == 0:
        log.info(describe(recipe))
    build = partial(build_maker, config, recipe, data, epoch_shard, device_id)
    identity = {
        "data": data.digest,
        "config": config.model_dump_json(exclude=FREE),
        "device": "cpu" if device_id is None else "gpu",
    }
    return Loader(build, epoch_shard, identity, config.prefetch)


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


def check_cache(config: LoaderConfig, data: PackedShards, epoch_shard: EpochShard) -> None:
    """Refuse a cache that could not hold what the ranks of this machine read at a time."""
    shards, buffer = data.manifest.shards, 0 if epoch_shard.complete else config.shuffle_buffer
    held = math.ceil(buffer * len(shards) / data.samples) + SPARE_SHARDS
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed = min(ranks * held * max(shard.bytes for shard in shards), data.manifest.bytes)
    if needed > config.cache_gb * 1e9:
        raise UserError(
            f"data.cache_gb={config.cache_gb:g}: {ranks} rank(s) of this machine read {held} shards each at "
            f"a time, {needed / 1e9:.3g} GB; give that at least, or take a smaller data.shuffle_buffer"
        )


SPARE_SHARDS = 3
"""That a rank holds beside those it draws from: partly read ones, and the next."""


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
    device_id: int | None,
    epoch: int = 0,
    batch: int = 0,
) -> BatchMaker:
    """The maker of one rank's batches, from a batch of an epoch on."""
    seeds = Seeds(config.seed, epoch_shard.rank)
    strength = partial(_strength, config.background.warmup_epochs, len(epoch_shard))
    device = torch.device("cpu") if device_id is None else torch.device("cuda", device_id)
    renderer = choose_renderer(device, config)
    wanted = components(config, data.tiles, everything=recipe.sources)

    def needed(draw: Draw, lends: np.ndarray) -> np.ndarray:
        """The tiles that a batch's backgrounds are made of."""
        if recipe.sources:
            return lends
        draws = partial(seeds.generator, epoch=draw.epoch, batch=draw.batch)
        coins = batch_backgrounds(recipe, draws, lends, strength(draw.epoch, draw.batch))
        return np.isin(np.arange(len(lends)), coins.donor)

    fetcher = build_fetcher(config, data, epoch_shard, wanted, epoch, batch)
    options = reader_options(config, data, epoch_shard, device_id)
    reader = Reader(fetcher, options, tiles="tile.jpg" in wanted, needed=needed)
    return BatchMaker(reader, recipe, renderer, seeds, strength, device)


def build_fetcher(
    config: LoaderConfig,
    data: Dataset,
    epoch_shard: EpochShard,
    wanted: list[str],
    epoch: int = 0,
    batch: int = 0,
) -> Fetcher:
    """The fetcher of one rank's samples, of these components, from a batch of an epoch on."""
    buffer = 0 if epoch_shard.complete else config.shuffle_buffer
    sampler = Sampler(data.sizes, epoch_shard, config.seed, buffer)
    depth = config.reader_depth
    # Beside its own, batches are in the decoder's hands and the renderer's.
    remember = depth + 2 * config.prefetch + 4
    return Fetcher(data, sampler, wanted, epoch=epoch, batch=batch, depth=depth, remember=remember)


def reader_options(
    config: LoaderConfig, data: Dataset, epoch_shard: EpochShard, device_id: int | None
) -> ReaderOptions:
    """The options of a loader's decoding."""
    return ReaderOptions(
        batch_size=epoch_shard.batch_size,
        threads=config.threads or default_threads(),
        device_id=device_id,
        prefetch=config.prefetch,
        hw_decoder_load=config.hw_decoder_load,
        preallocate=config.preallocate,
        max_pixels=data.max_pixels,
        packed=data.is_looked_into or not config.decoding.upright,
        decoding=config.decoding,
    )


def choose_renderer(device: torch.device, config: LoaderConfig) -> Renderer:
    """The renderer of this device."""
    if device.type == "cpu":
        from dali_bgaug.views.cpu import CpuRenderer  # a GPU needs no Numba

        return CpuRenderer(config.threads or default_threads(), config.half)
    from dali_bgaug.views.gpu import GpuRenderer

    return GpuRenderer(device, config.half)


def _strength(warmup_epochs: int, batches: int, epoch: int, batch: int) -> float:
    """The background warm-up: rises linearly from 0 to 1."""
    return min(1.0, (epoch + batch / batches) / warmup_epochs) if warmup_epochs else 1.0


def default_threads() -> int:
    """The CPUs this process may use, shared out among the ranks of this machine."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // ranks)
