"""Features of a whole set through the `evaluation` pipeline, each photo once, on any number of ranks."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from dali_bgaug.config import Options
from dali_bgaug.dataset import Dataset
from dali_bgaug.errors import UserError
from dali_bgaug.photo_tree import Oddity, recorded
from pipelines import LoaderConfig, build_loader, open_data
from train import distributed

PHOTOS = 64
"""A rank's batch, unless `batch_size=` says otherwise."""


class Features(NamedTuple):
    """Features and labels of this rank's share of a set."""

    rows: torch.Tensor
    """float32 [n, D]."""
    labels: torch.Tensor
    """int64 [n], on the same device."""


class Runtime(Options):
    """Runtime options of a loader, which change nothing of what is shown; None: the loader's default."""

    batch_size: int | None = None
    """Photos a batch over all ranks; by default PHOTOS of each."""
    device: str | None = None
    threads: int | None = None
    prefetch: int | None = None
    reader_depth: int | None = None
    verify: bool | None = None
    cache: Path | None = None
    cache_gb: float | None = None
    hw_decoder_load: float | None = None
    preallocate: tuple[int, int] | None = None

    @classmethod
    def of(cls, data: LoaderConfig) -> "Runtime":
        """That of another loader, but for its batch."""
        return cls(**{name: getattr(data, name) for name in cls.model_fields if name != "batch_size"})


def evaluation_values(run: LoaderConfig, shards: Path) -> dict[str, Any]:
    """The values of `evaluation_config`, over which those of a command line are laid."""
    size = next(iter(run.views.values())).crop.size
    return {
        **{"pipeline": "evaluation", "batch_size": PHOTOS * distributed.world_size(), "shards": str(shards)},
        **{"crop": {"size": size}, "resize": round(size * 8 / 7), "normalise": run.normalise.model_dump()},
    }


def evaluation_config(run: LoaderConfig, shards: Path, *, runtime: Runtime | None = None) -> LoaderConfig:
    """The loader of a set to evaluate on: resized and normalised as the views were that it was trained on.

    Args:
        run: the `data` section of its run.
        shards: packed shards, or a folder of class folders of photos.
        runtime: how the set is read; by default as a loader is.
    """
    reading = {} if runtime is None else runtime.model_dump(exclude_none=True)
    return LoaderConfig(**evaluation_values(run, shards) | reading)


def open_set(path: Path, option: str) -> Dataset:
    """Open a set to be evaluated on; of a folder of photos say, once, what was found in it."""
    data = open_data(path, False, option)
    if data.oddities is not None and _folders.get(path) != data.oddities:
        _folders[path] = data.oddities
        if distributed.rank() == 0:
            print(data.describe())
    return data


_folders: dict[Path, Mapping[str, Oddity]] = {}
"""Folders that were opened, and what was odd in them."""


def set_record(path: Path, photos: int) -> dict[str, Any]:
    """The record, in a result, of a set that `open_set` opened."""
    oddities = _folders.get(path)
    return {"shards": str(path), "photos": photos, **({"oddities": recorded(oddities)} if oddities else {})}


def same_classes(sets: dict[str, Path]) -> list[str]:
    """The classes of sets by their options, which must be the same.

    Raises:
        UserError: a set has others, or is none.
    """
    (first, *others) = [(option, path, open_set(path, option).classes) for option, path in sets.items()]
    for option, path, classes in others:
        if classes != first[2]:
            different = sorted(set(classes) ^ set(first[2]))
            how = f"only in one of them: {', '.join(different[:8])}" if different else "in another order"
            raise UserError(
                f"{option}={path}: its {len(classes)} classes are not the {len(first[2])} of "
                f"{first[0]}={first[1]} ({how}), labels would not mean the same; pack it with the same "
                "--classes"
            )
    return first[2]


def batches(
    data: LoaderConfig, device: torch.device, title: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This rank's share of a set: images [n, 3, H, W] and labels int64 [n] on a device, padding left out."""
    rank, ranks = distributed.rank(), distributed.world_size()
    with (
        build_loader(data, rank, ranks) as loader,
        tqdm(desc=title, unit="photo", total=loader.samples, leave=None, disable=rank > 0) as bar,
    ):
        for batch in loader:
            valid = batch["valid"]
            bar.update(min(data.batch_size, loader.samples - bar.n))
            if valid.any():
                yield batch["image"].to(device)[valid.to(device)], batch["label"][valid].to(device)


@torch.no_grad()
def extract_features(
    network: Callable[[torch.Tensor], torch.Tensor], data: LoaderConfig, device: torch.device, title: str
) -> Features:
    """Features of this rank's share of a set; every rank must call this.

    network: images on `device` -> [n, D], in evaluation mode.
    """
    pairs = [(network(images).float(), labels) for images, labels in batches(data, device, title)]
    return Features(*map(torch.cat, zip(*pairs, strict=True)))


def count_photos(features: Features) -> int:
    """The count of photos in all ranks' shares; every rank must call this."""
    return int(distributed.all_reduce_sum(torch.tensor([len(features.rows)], device=features.rows.device)))


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """A network where it will run, in the memory format of the loader's images."""
    return network.to(device, memory_format=torch.channels_last).eval()
