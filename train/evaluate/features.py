"""Features of a whole set through the `evaluation` pipeline, each photo once, on any number of ranks."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from dali_bgaug.config import override, validate
from dali_bgaug.dataset import Dataset
from dali_bgaug.errors import UserError
from dali_bgaug.photo_tree import Oddity, recorded
from pipelines import LoaderConfig, build_loader, open_data
from pipelines.config import FREE
from train import distributed

PHOTOS = 64
"""A rank's batch, unless `batch_size=` says otherwise."""


class Features(NamedTuple):
    """Of this rank's share of a set."""

    rows: torch.Tensor
    """float32 [n, D]."""
    labels: torch.Tensor
    """int64 [n], on the same device."""


def evaluation_data(
    trained: dict[str, Any], shards: Path, option: str, words: Sequence[str] = ()
) -> LoaderConfig:
    """How a backbone is shown a set: resized and normalised as the views were that it was trained on.

    Args:
        trained: the `data` section of its run.
        shards: packed shards, or a folder of class folders of photos.
        option: where that comes from, for errors.
        words: `key=value` of the loader's config.
    """
    size = next(iter(trained["views"].values()))["crop"]["size"]
    values = {
        **{"pipeline": "evaluation", "batch_size": PHOTOS * distributed.world_size(), "shards": str(shards)},
        **{"crop": {"size": size}, "resize": round(size * 8 / 7), "normalise": trained["normalise"]},
    }
    return validate(LoaderConfig, override(values, list(words)), f"{option}={shards}")


def same_reading(data: LoaderConfig) -> list[str]:
    """Words that have a loader read as another does: on what device, with how many threads, mapped or not."""
    values = data.model_dump(mode="json", include={"device", "hw_decoder_load", *FREE - {"shards"}})
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def open_set(path: Path, option: str) -> Dataset:
    """Open a set to be evaluated on; of a folder of photos say, once, what was found in it."""
    data = open_data(path, False, option)
    if data.oddities is not None and _folders.get(path) != data.oddities:
        _folders[path] = data.oddities
        if distributed.rank() == 0:
            print(data.describe())
    return data


_folders: dict[Path, Mapping[str, Oddity]] = {}
"""Those that were opened, and what was odd."""


def set_record(path: Path, photos: int) -> dict[str, Any]:
    """What a result says of a set that `open_set` opened."""
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
    """Of all ranks' shares together; every rank must call this."""
    return int(distributed.sum_over_ranks(torch.tensor([len(features.rows)], device=features.rows.device)))


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """A network where it will run, in the memory format of the loader's images."""
    return network.to(device, memory_format=torch.channels_last).eval()
