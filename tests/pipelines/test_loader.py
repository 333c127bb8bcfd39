"""The loader: epochs, ranks, exact resume, errors."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.loader import Share
from pipelines import LoaderConfig, build_loader


def _config(shards: Path, **values: object) -> LoaderConfig:
    defaults = {"batch_size": 8, "device": "cpu", "threads": 2, "crop": {"size": 32, "fg_min": 0.1}}
    return LoaderConfig(shards=shards, **{**defaults, "background": {"kind": "swaps"}, **values})


def test_a_batch_is_what_the_docstring_says(textured: Path) -> None:
    with build_loader(_config(textured)) as loader:
        assert len(loader) == 6
        batch = next(iter(loader))
    for name in ("query", "key", "negative"):
        assert batch[name].shape == (8, 3, 32, 32)
        assert batch[name].dtype == torch.float32
        assert batch[name].is_contiguous(memory_format=torch.channels_last)
    assert batch["label"].dtype == torch.int64
    assert set(batch["label"].tolist()) <= {0, 1, 2}
    assert batch["replaced"].shape == (8, 2)


def test_half_precision_is_an_option(textured: Path) -> None:
    with build_loader(_config(textured, half=True)) as loader:
        assert next(iter(loader))["query"].dtype == torch.float16


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("samples", [64, 100, 1000, 1023])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_every_rank_has_as_many_batches(samples: int, world_size: int, batch_size: int) -> None:
    shares = [Share(samples, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    left_out = samples - sum(len(share) * batch_size for share in shares)
    assert 0 <= left_out < batch_size * world_size + world_size
    for rank, share in enumerate(shares):
        own = samples * (rank + 1) // world_size - samples * rank // world_size
        assert len(share) * batch_size <= own <= share.padded_batches * batch_size
        assert share.padded_batches - len(share) in (0, 1)


def _photos(loader: object) -> list[bytes]:
    """One epoch's photos, each told by its thumbnail."""
    return [photo.numpy().tobytes() for batch in loader for photo in batch["photo"]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_photo_twice_in_an_epoch_and_others_each_epoch(textured: Path, world_size: int) -> None:
    epochs: list[list[list[bytes]]] = []
    for rank in range(world_size):
        config = _config(textured, batch_size=4 * world_size, background={"kind": "none"})
        with build_loader(config, rank, world_size, with_sources=True) as loader:
            epochs.append([_photos(loader) for _ in range(3)])
            assert loader.epoch == 3
    for epoch in range(3):
        together = [photo for rank in range(world_size) for photo in epochs[rank][epoch]]
        assert max(Counter(together).values()) == 1
        assert len(together) == 50 // world_size // 4 * 4 * world_size
    assert epochs[0][0] != epochs[0][1]
    assert len({photo for epoch in epochs[0] for photo in epoch}) > len(epochs[0][0])


def test_ranks_have_their_own_augmentations(textured: Path) -> None:
    """Rank 0 of one and rank 1 of two draw other windows (a common stream is a classic bug)."""
    windows = []
    for rank in (0, 1):
        with build_loader(_config(textured, batch_size=16), rank, 2, with_sources=True) as loader:
            windows.append(next(iter(loader))["window"])
    assert not torch.isclose(windows[0], windows[1]).any()


def _signature(batch: dict[str, torch.Tensor]) -> list[bytes]:
    return [tensor.contiguous().numpy().tobytes() for _, tensor in sorted(batch.items())]


@pytest.mark.parametrize("done", [0, 1, 5, 6, 7, 14])
@pytest.mark.parametrize("kind", ["rm", "swaps"])
def test_resume_is_exact(textured: Path, kind: str, done: int) -> None:
    """After any number of batches, within and across epochs, with a warm-up: the same bits as
    uninterrupted."""
    config = _config(textured, background={"kind": kind, "p_pos": 0.5, "warmup_epochs": 3})

    def batches(loader: object, count: int) -> list[list[bytes]]:
        found: list[list[bytes]] = []
        while len(found) < count:
            for batch in loader:
                found.append(_signature(batch))
                if len(found) == count:
                    break
        return found

    with build_loader(config) as loader:
        batches(loader, done)
        state = loader.state_dict()
        expected = batches(loader, 8)
    with build_loader(config) as loader:
        loader.load_state_dict(state)
        assert batches(loader, 8) == expected


def test_a_state_of_other_data_or_config_is_refused(textured: Path, flat: Path) -> None:
    with build_loader(_config(textured)) as loader:
        state = loader.state_dict()
    with build_loader(_config(textured, seed=1)) as loader, pytest.raises(UserError, match="its config was"):
        loader.load_state_dict(state)
    with build_loader(_config(flat)) as loader, pytest.raises(UserError, match="its data was"):
        loader.load_state_dict(state)


def test_a_moved_data_set_resumes(textured: Path, tmp_path: Path) -> None:
    with build_loader(_config(textured)) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        expected = _signature(next(batches))
    moved = shutil.copytree(textured, tmp_path / "elsewhere")
    with build_loader(_config(moved)) as loader:
        loader.load_state_dict(state)
        assert _signature(next(iter(loader))) == expected


def test_a_closed_loader_says_so(textured: Path) -> None:
    loader = build_loader(_config(textured))
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


def test_bad_options_are_errors(textured: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.shards=.*nowhere: does not exist"):
        build_loader(_config(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"data.batch_size=8: must be divisible by the number of ranks, 3"):
        build_loader(_config(textured), 0, 3)
    with pytest.raises(UserError, match=r"data.batch_size=64: .* has 50 photos"):
        build_loader(_config(textured, batch_size=64))
    with pytest.raises(UserError, match="two photos at least"):
        build_loader(_config(textured), 0, 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said(textured: Path) -> None:
    with pytest.raises(UserError, match="data.device=gpu: no GPU found"):
        build_loader(_config(textured, device="gpu"))
