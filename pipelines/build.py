"""Config -> DALI pipeline -> loader."""

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nvidia.dali import Pipeline, backend, pipeline_def

from dali_bgaug.errors import UserError
from dali_bgaug.folder import FolderJournal, PhotoFolder, open_folder, read_folder
from dali_bgaug.graph.context import Context
from dali_bgaug.graph.read import Source, read, with_header
from dali_bgaug.journal import Journal
from dali_bgaug.loader import Loader, Share
from dali_bgaug.shards import Manifest, manifest_digest, open_shards
from pipelines.config import FREE, LoaderConfig, components, method_module


def build_loader(
    config: LoaderConfig,
    rank: int = 0,
    world_size: int = 1,
    *,
    device_id: int | None = None,
    with_sources: bool = False,
) -> Loader:
    """A loader of this rank's share of the data set.

    Args:
        config: what to read and which views to make.
        rank, world_size: this process among all that train together.
        device_id: the GPU, by default the local rank's; ignored on the CPU.
        with_sources: batches also hold what views were made from (for contact sheets).

    Raises:
        UserError: shards missing or changed, a batch that the ranks cannot share, too few photos, no GPU.
    """
    if config.batch_size % world_size:
        raise UserError(
            f"data.batch_size={config.batch_size}: must be divisible by the number of ranks, {world_size}"
        )
    complete = getattr(method_module(config.pipeline), "COMPLETE", False)
    manifest = (open_data if complete else open_shards)(config.shards, config.verify, "data.shards")
    if with_sources and isinstance(manifest, PhotoFolder):
        raise UserError(f"data.shards={config.shards}: class folders have no masks to show; give shards")
    share = Share(manifest.samples, config.batch_size // world_size, rank, world_size, complete)
    check_share(config, manifest, share)
    device_id = choose_device(config.device, device_id)
    names: list[str] = []
    journal = (FolderJournal if isinstance(manifest, PhotoFolder) else Journal)(config.shards)

    def build(origin: int, checkpoint: bytes | None) -> Pipeline:
        pipeline, names[:] = build_pipeline(
            config,
            manifest,
            share,
            device_id=device_id,
            with_sources=with_sources,
            origin=origin,
            checkpoint=checkpoint,
            journal=journal,
        )
        return pipeline

    identity = {
        "data": manifest.digest if isinstance(manifest, PhotoFolder) else manifest_digest(config.shards),
        "config": config.model_dump_json(exclude=FREE),
        "device": "cpu" if device_id is None else "gpu",
    }
    return Loader(build, names, share, identity, journal)


def open_data(
    folder: Path, verify: bool | None = None, option: str = "data.shards"
) -> Manifest | PhotoFolder:
    """What a complete pipeline (evaluation) can read: packed shards, or else class folders of photos."""
    if (folder / "manifest.json").exists():
        return open_shards(folder, verify, option)
    return open_folder(folder, option)


def check_share(config: LoaderConfig, manifest: Manifest | PhotoFolder, share: Share) -> None:
    """Refuse a rank's share that its loader could not make a batch of."""
    if manifest.samples < share.world_size or len(share) == 0:
        raise UserError(
            f"data.batch_size={config.batch_size}: the data set {config.shards} has "
            f"{manifest.samples} photos, too few for one batch on {share.world_size} ranks; "
            "take a smaller batch"
        )
    if config.background.uses_tiles and share.batch_size < 2:
        raise UserError(
            f"data.batch_size={config.batch_size}: a rank needs two photos at least to swap backgrounds"
        )
    if config.background.uses_tiles and manifest.donors < 2:
        raise UserError(
            f"data.shards={config.shards}: {manifest.donors} photos can lend a background, two are needed; "
            "look at the masks (all empty or full-frame?)"
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
    if number >= count:
        raise UserError(f"this process wants GPU {number}, there are {count}; start one process a GPU")
    return number


def build_pipeline(
    config: LoaderConfig,
    manifest: Manifest | PhotoFolder,
    share: Share,
    *,
    device_id: int | None,
    with_sources: bool = False,
    origin: int = 0,
    checkpoint: bytes | None = None,
    journal: Journal | None = None,
) -> tuple[Pipeline, list[str]]:
    """Define the DALI pipeline of one rank; nothing is built or read yet. Returns it and its outputs'
    names."""
    context = Context(
        device="cpu" if device_id is None else "gpu",
        seed=config.seed,
        rank=share.rank,
        batch_size=share.batch_size,
        origin=origin,
        compiled=_compiled(config, device_id),
        hw_decoder_load=config.hw_decoder_load,
        preallocate=config.preallocate,
        strength=partial(_strength, config.background.warmup_epochs, share.padded_batches, origin),
    )
    method = method_module(config.pipeline)
    names: list[str] = []

    @pipeline_def(
        batch_size=share.batch_size,
        num_threads=config.threads or default_threads(),
        device_id=device_id,
        seed=context.seed_of("pipeline"),
        prefetch_queue_depth=config.prefetch,
        enable_conditionals=True,
        enable_checkpointing=True,
        checkpoint=checkpoint,
    )
    def define() -> tuple[Any, ...]:
        place = {"mmap": config.mmap, "depth": config.reader_depth}
        if isinstance(manifest, PhotoFolder):
            sample = read_folder(context, manifest, share.world_size, **place)
        else:
            sample = read(
                context,
                config.shards,
                manifest,
                components(config, everything=with_sources),
                share.world_size,
                shuffle_buffer=0 if share.complete else config.shuffle_buffer,
                **place,
            )
        if journal:
            journal.watch(sample["jpg"])
        sample |= with_header(context, sample["jpg"])
        outputs = method.graph(Source(context, sample, manifest.mask_size, with_sources), config)
        outputs["cls"] = sample["cls"]
        names[:] = outputs
        return tuple(outputs.values())

    return define(), names


def _compiled(config: LoaderConfig, device_id: int | None) -> bool:
    """Whether views are made by compiled kernels."""
    if not config.compiled or device_id is not None:
        return False
    if find_spec("numba") is None:
        raise UserError(
            "data.compiled=true: needs numba, which is not here; install it, or take data.compiled=false"
        )
    return True


def _strength(warmup_epochs: int, batches: int, origin: int, iteration: int) -> float:
    """The background warm-up: rises linearly from 0 to 1."""
    return min(1.0, (origin + iteration / batches) / warmup_epochs) if warmup_epochs else 1.0


def default_threads() -> int:
    """The CPUs this process may use, shared out among the ranks of this machine."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // ranks)
