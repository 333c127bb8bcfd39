"""One pass over a set: every photo is shown and judged once, whatever the ranks and whatever is damaged."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dali_bgaug.config import validate
from dali_bgaug.errors import UnusablePhotos, UserError, shown, some
from dali_bgaug.folder import list_photos
from pipelines import LoaderConfig, build_loader
from train import distributed
from train.evaluate.robustness.protocol import (
    NOT_FINITE,
    STANDARD_RESIZE,
    UNREAD,
    EvaluatedNetwork,
    RobustnessSet,
    Score,
)
from train.features import PHOTOS, Runtime


def shown_values(
    network: EvaluatedNetwork,
    folder: Path,
    orientation: str,
    resize: float | None = STANDARD_RESIZE,
    border: int = 0,
) -> dict[str, Any]:
    """The values of a loader that shows photos of a folder as a network wants them; see `RobustnessSet`."""
    return {
        **{"pipeline": "evaluation", "shards": folder, "orientation": orientation, "border": border},
        **{"crop": {"size": network.size}, "normalise": network.normalise.model_dump()},
        "resize": None if resize is None else round(resize * network.size),
    }


def set_config(
    network: EvaluatedNetwork, photos: RobustnessSet, runtime: Runtime, orientation: str
) -> LoaderConfig:
    """The loader of a rank's share of a set: as the set's protocol and the network want to be shown photos.

    Raises:
        UserError: the ranks cannot share `runtime.batch_size`, or a value of `runtime` cannot be.
    """
    ranks, values = distributed.world_size(), runtime.model_dump(exclude_none=True)
    batch = values.pop("batch_size", PHOTOS * ranks)
    if batch % ranks:
        raise UserError(f"batch_size={batch}: must be divisible by the number of ranks, {ranks}")
    show = shown_values(network, photos.folder, orientation, photos.resize, photos.border)
    return validate(LoaderConfig, show | values | {"batch_size": batch // ranks}, f"--set {photos.name}")


def how_shown(config: LoaderConfig) -> dict[str, Any]:
    """What a loader makes of a photo, as results have it."""
    return {
        **{"crop": config.views["image"].crop.size, "resize": config.resize, "border": config.border},
        **{"orientation": config.orientation, "normalise": config.normalise.model_dump(mode="json")},
    }


def evaluate_set(
    network: EvaluatedNetwork, photos: RobustnessSet, config: LoaderConfig, device: torch.device
) -> dict[str, Any]:
    """The result of a set; every rank must call this.

    Args:
        network: its `network` is on `device` afterwards, in evaluation mode.
        photos: the same on every rank.
        config: of `set_config`.
        device: of the network.

    Raises:
        UserError: not one photo could be read, or logits are not finite numbers.
    """
    outcomes = judge_photos(network.network, photos, config, device)
    if wrong := [photos.files[number] for number in np.flatnonzero((outcomes == NOT_FINITE).any(axis=1))]:
        of = f"{len(wrong)} of {len(photos.files)} photos ({shown(some(wrong, 3))})"
        raise not_finite(f"--set {photos.name}={photos.folder}", network, of)
    unread = [photos.files[number] for number in np.flatnonzero((outcomes == UNREAD).any(axis=1))]
    if len(unread) == len(photos.files):
        raise UserError(f"--set {photos.name}={photos.folder}: none of its {len(unread)} photos can be shown")
    if unread and distributed.rank() == 0:
        print(f"{photos.name}: {len(unread)} photos left out: {shown(some(unread))}", file=sys.stderr)
    return {
        **{"protocol": photos.protocol, "folder": str(photos.folder)},
        **photos.score.summarise(outcomes),
        **{"unread": unread, **(photos.record or {})},
    }


def not_finite(option: str, network: EvaluatedNetwork, of: str) -> UserError:
    """An error about logits of which argmax would make answers. option: the set; of: which photos."""
    return UserError(
        f"{option}: the logits of {network.name} are not finite numbers for {of}; its training diverged, or "
        "its weights are damaged: give another checkpoint"
    )


@torch.no_grad()
def judge_photos(
    network: nn.Module, photos: RobustnessSet, config: LoaderConfig, device: torch.device
) -> np.ndarray:
    """Outcomes of all photos of a set: int16 [photos, criteria], the same on every rank, UNREAD for photos
    that cannot be shown; every rank must call this.

    A rank has a loader of its own for every ranks-th photo, so ranks wait for one another at the end alone.
    A loader ends at the first photo that it cannot show; another one goes on with what was not judged yet.
    """
    rank, ranks, count = distributed.rank(), distributed.world_size(), len(photos.files)
    network = network.to(device, memory_format=torch.channels_last).eval()
    outcomes = np.zeros((count, len(photos.score.criteria)), np.int16)
    left = np.arange(rank, count, ranks)
    with tqdm(desc=photos.name, unit="photo", total=count, leave=None, disable=rank > 0) as bar:
        while len(left):
            judged, reasons = _judge(network, photos, left, config, device, bar)
            done = [number for numbers, _ in judged for number in numbers.tolist()]
            for numbers, found in judged:
                outcomes[numbers.numpy()] = found.cpu().numpy()
            left = np.setdiff1d(left, done, assume_unique=True)
            if unread := [number for number in left.tolist() if _path(photos, number) in reasons]:
                for number in unread:
                    bar.write(f"{photos.name}: left out: {shown(reasons[_path(photos, number)])}", sys.stderr)
                outcomes[unread] = UNREAD
                left = np.setdiff1d(left, unread, assume_unique=True)
    return _of_all_ranks(outcomes, device)


Judged = list[tuple[torch.Tensor, torch.Tensor]]
"""Numbers of photos, int64 [n] on the CPU, and their outcomes, int64 [n, criteria] on the network's
device."""


def _judge(
    network: nn.Module,
    photos: RobustnessSet,
    numbers: np.ndarray,
    config: LoaderConfig,
    device: torch.device,
    bar: "tqdm[Any]",
) -> tuple[Judged, dict[str, str]]:
    """Judge photos until one cannot be shown; and why that is, by path: {} where all were judged.

    Outcomes stay where they are made: fetching them would wait for the network at every batch.
    """
    judged: Judged = []
    data = list_photos(photos.folder, [photos.files[number] for number in numbers], numbers.tolist())
    config = config.replaced(batch_size=min(config.batch_size, len(numbers)))
    try:
        with build_loader(config, data=data) as loader:
            for batch in loader:
                valid = batch["valid"]
                images, places = batch["image"].to(device), batch["label"][valid]
                images = images[valid.to(device)] if len(places) < len(valid) else images
                judged.append((places, _judge_batch(network, photos.score, images, places.to(device))))
                bar.update(min(len(places) * distributed.world_size(), bar.total - bar.n))
    except UnusablePhotos as error:
        left = set(numbers.tolist()) - {number for done, _ in judged for number in done.tolist()}
        if not any(_path(photos, number) in error.reasons for number in left):
            raise
        return judged, error.reasons
    return judged, {}


def _judge_batch(
    network: nn.Module, score: Score, images: torch.Tensor, numbers: torch.Tensor
) -> torch.Tensor:
    """Outcomes as `Score.judge` has them, but for photos of which the network says NaN: of these argmax makes
    an answer, too."""
    finite = torch.ones(len(images), dtype=torch.bool, device=images.device)

    def logits_of(shown_images: torch.Tensor) -> torch.Tensor:
        logits = network(shown_images)
        finite.logical_and_(logits.detach().isfinite().all(dim=1))
        return logits

    outcomes = score.judge(logits_of, images, numbers)
    return outcomes.masked_fill(~finite[:, None], NOT_FINITE)


def _path(photos: RobustnessSet, number: int) -> str:
    return str(photos.folder / photos.files[number])


def _of_all_ranks(outcomes: np.ndarray, device: torch.device) -> np.ndarray:
    """The outcomes of every rank's photos, each of which are 0 on all other ranks."""
    if distributed.world_size() == 1:
        return outcomes
    rows = torch.from_numpy(outcomes.astype(np.int32)).to(device)
    return distributed.all_reduce_sum(rows).cpu().numpy().astype(np.int16)


def set_digest(photos: RobustnessSet) -> str:
    """A hash of a set's files, names and sizes; every rank must call this.

    Raises:
        UserError: ranks see other files.
    """
    digest = list_photos(photos.folder, photos.files, []).digest
    if len(set(distributed.all_gather_objects(digest))) > 1:
        raise UserError(
            f"--set {photos.name}={photos.folder}: the ranks see different files there; give all machines "
            "the same"
        )
    return digest
