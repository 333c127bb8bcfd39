"""Loaders of small batches."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from dali_bgaug.views.options import PhotometricOptions
from pipelines import LoaderConfig, build_loader


def loader_config(shards: Path, **values: object) -> LoaderConfig:
    defaults = {"batch_size": 8, "device": "cpu", "threads": 2, "crop": {"size": 32, "fg_min": 0.1}}
    return LoaderConfig(shards=shards, **{**defaults, "background": {"kind": "swaps"}, **values})


def signature(batch: dict[str, torch.Tensor]) -> list[bytes]:
    return [tensor.contiguous().numpy().tobytes() for _, tensor in sorted(batch.items())]


def give(state: dict | None, shards: str, method: str, count: int) -> tuple[list[bytes], dict]:
    """So many batches after a state, as digests, and the state then."""
    views = {"global": {"crop": {"size": 32}}, "local": {"crop": {"size": 16}}} if method == "swav" else {}
    config = LoaderConfig(
        pipeline=method,
        shards=Path(shards),
        batch_size=8,
        device="cpu",
        threads=2,
        crop={"size": 32, "fg_min": 0.1},
        views=views,
        background={"kind": METHODS[method], "p_pos": 0.5, "warmup_epochs": 3},
    )
    found: list[bytes] = []
    with build_loader(config) as loader:
        if state:
            loader.load_state_dict(state)
        while len(found) < count:
            for batch in loader:
                found.append(hashlib.sha256(b"".join(signature(batch))).digest())
                if len(found) == count:
                    break
        return found, loader.state_dict()


def levels_of(view: np.ndarray) -> tuple[int, int]:
    """The one level outside and the one level inside the foreground square, a pixel from its edge."""
    outside = np.concatenate([view[:7].ravel(), view[25:].ravel(), view[:, :7].ravel(), view[:, 25:].ravel()])
    inside = view[9:23, 9:23]
    assert np.ptp(outside) == 0, np.unique(outside)
    assert np.ptp(inside) == 0, np.unique(inside)
    return int(outside[0]), int(inside[0, 0])


PLAIN = PhotometricOptions(jitter_p=0, grey_p=0, blur_p=0)
"""No photometric change: what comes out is what was cropped."""


METHODS = {"moco_v2": "swaps", "byol": "random", "swav": "random", "rotnet": "rm", "supervised": "random"}
