"""The loader: epochs, ranks, exact resume, errors."""

import itertools
import multiprocessing
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.sampling import EpochShard
from pipelines import LoaderConfig, build_loader
from tests.helpers import programs
from tests.helpers.loaders import METHODS, give, loader_config, signature


def test_a_batch_is_what_the_docstring_says(textured: Path) -> None:
    with build_loader(loader_config(textured)) as loader:
        assert len(loader) == 6
        batch = next(iter(loader))
    for name in ("query", "key", "negative_0"):
        assert batch[name].shape == (8, 3, 32, 32)
        assert batch[name].dtype == torch.float32
        assert batch[name].is_contiguous(memory_format=torch.channels_last)
    assert batch["label"].dtype == torch.int64
    assert set(batch["label"].tolist()) <= {0, 1, 2}
    assert batch["replaced"].shape == (8, 2)


def test_half_precision_is_an_option(textured: Path) -> None:
    with build_loader(loader_config(textured, half=True)) as loader:
        assert next(iter(loader))["query"].dtype == torch.float16


@pytest.mark.parametrize("world_size", [*range(1, 9), 13, 32, 63, 64])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
def test_every_rank_has_as_many_batches(world_size: int, batch_size: int) -> None:
    """Training leaves out less than a global batch, evaluation nothing; nobody has a batch more."""
    for samples in (64, 65, 100, 1000, 1023, 4096, 1_281_167):
        training, complete = (
            [EpochShard(samples, batch_size, rank, world_size, complete) for rank in range(world_size)]
            for complete in (False, True)
        )
        assert len({len(shard) for shard in training}) == len({len(shard) for shard in complete}) == 1
        given = sum(len(shard) * batch_size for shard in training)
        assert 0 <= samples - given < batch_size * world_size
        assert sum(shard.own for shard in training) == samples
        for shard in training:
            assert len(shard) * batch_size <= shard.own < (len(shard) + 1) * batch_size + 1
        last = len(complete[0]) - 1
        full = sum(int(shard.valid(last).sum()) for shard in complete) + last * batch_size * world_size
        behind = [shard for shard in complete if not shard.valid(last - 1).all()] if last else []
        if not behind:
            assert full == samples
        else:  # one a sample shorter may end a batch earlier
            counts = [int(shard.valid(batch).sum()) for shard in complete for batch in (last - 1, last)]
            assert sum(counts) + (last - 1) * batch_size * world_size == samples


def _photos(loader: object) -> list[bytes]:
    """One epoch's photos, each told by its thumbnail."""
    return [photo.numpy().tobytes() for batch in loader for photo in batch["photo"]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_photo_twice_in_an_epoch_and_others_each_epoch(textured: Path, world_size: int) -> None:
    epochs: list[list[list[bytes]]] = []
    for rank in range(world_size):
        config = loader_config(textured, batch_size=4 * world_size, background={"kind": "none"})
        with build_loader(config, rank, world_size, with_sources=True) as loader:
            epochs.append([_photos(loader) for _ in range(3)])
            assert loader.epoch == 3
    for epoch in range(3):
        together = [photo for rank in range(world_size) for photo in epochs[rank][epoch]]
        assert max(Counter(together).values()) == 1
        assert len(together) == 50 // world_size // 4 * 4 * world_size
    assert epochs[0][0] != epochs[0][1]
    assert len({photo for epoch in epochs[0] for photo in epoch}) > len(epochs[0][0])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_gives_every_photo_once(textured: Path, world_size: int) -> None:
    config = LoaderConfig(
        pipeline="evaluation",
        shards=textured,
        batch_size=6 * world_size,
        device="cpu",
        resize=40,
        crop={"size": 32},
    )
    epochs: list[list[bytes]] = [[], []]
    lengths = set()
    for rank in range(world_size):
        with build_loader(config, rank, world_size) as loader:
            lengths.add(len(loader))
            for epoch in epochs:
                for batch in loader:
                    assert batch["image"].shape == (6, 3, 32, 32)
                    epoch += [image.numpy().tobytes() for image in batch["image"][batch["valid"]]]
    assert lengths == {{1: 9, 2: 5, 3: 3}[world_size]}
    assert epochs[0] == epochs[1]  # always in the same order
    assert len(epochs[0]) == len(set(epochs[0])) == 50


def test_ranks_have_their_own_augmentations(textured: Path) -> None:
    """Rank 0 of one and rank 1 of two draw other crop boxes (a common stream is a classic bug)."""
    crop_boxes = []
    for rank in (0, 1):
        with build_loader(loader_config(textured, batch_size=16), rank, 2, with_sources=True) as loader:
            crop_boxes.append(next(iter(loader))["crop_box"])
    assert not torch.isclose(crop_boxes[0], crop_boxes[1]).any()


@pytest.mark.parametrize("done", [0, 1, 5, 6, 7, 14])
@pytest.mark.parametrize("kind", ["rm", "swaps"])
def test_resume_is_exact(textured: Path, kind: str, done: int) -> None:
    """After any number of batches, within and across epochs, with a warm-up: the same bits as
    uninterrupted."""
    config = loader_config(textured, background={"kind": kind, "p_pos": 0.5, "warmup_epochs": 3})

    def batches(loader: object, count: int) -> list[list[bytes]]:
        found: list[list[bytes]] = []
        while len(found) < count:
            for batch in loader:
                found.append(signature(batch))
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


PROGRAM = """
import sys, torch
from tests.helpers.loaders import give
states = torch.load(sys.argv[1], weights_only=True)
torch.save({name: give(state, sys.argv[2], name, 5)[0] for name, state in states.items()}, sys.argv[3])
"""


@pytest.mark.slow
def test_every_method_resumes_in_a_new_process(textured: Path, tmp_path: Path) -> None:
    """Nine batches and then five in another process, across the end of an epoch of six, are the fourteen
    of an uninterrupted run."""
    whole = {method: give(None, str(textured), method, 14)[0] for method in METHODS}
    parts = {method: give(None, str(textured), method, 9) for method in METHODS}
    torch.save({method: state for method, (_, state) in parts.items()}, tmp_path / "states.pt")
    words = [str(tmp_path / "states.pt"), str(textured), str(tmp_path / "found.pt")]
    ended = programs.run_text(PROGRAM, *words)
    assert ended.returncode == 0, ended.stderr
    rest = torch.load(tmp_path / "found.pt", weights_only=True)
    assert {method: first + rest[method] for method, (first, _) in parts.items()} == whole


def test_another_number_of_ranks_takes_over_between_epochs(textured: Path) -> None:
    """Two ranks end an epoch; three begin the next: with every photo at most once, and not as before."""
    background = {"kind": "rm", "p_pos": 1.0, "warmup_epochs": 4}
    config = loader_config(textured, batch_size=12, background=background)
    with build_loader(config, 0, 2) as loader:
        batches = iter(loader)
        next(batches)
        middle = loader.state_dict()
        for _ in batches:
            pass
        end = loader.state_dict()
    assert (end["epoch"], end["batch"]) == (1, 0)
    photos = []
    for rank in range(3):
        with build_loader(config, rank, 3, with_sources=True) as loader:
            with pytest.raises(UserError, match=r"rank 0 of 2 in mid-epoch \(batch 1 of 4\), this is rank"):
                loader.load_state_dict(middle)
            loader.load_state_dict(end)
            assert (loader.epoch, loader.batch) == (1, 0)
            photos.append(_photos(loader))
            state = loader.state_dict()
            expected = _photos(loader)
        with build_loader(config, rank, 3, with_sources=True) as loader:  # and their own states resume
            loader.load_state_dict(state)
            assert loader.epoch == 2
            assert _photos(loader) == expected
        assert photos[-1] != expected
    together = [photo for rank in photos for photo in rank]
    assert len(set(together)) == len(together) == 48


def test_a_state_belongs_to_its_rank(textured: Path) -> None:
    config = loader_config(textured, batch_size=8)
    with build_loader(config, 0, 2) as loader:
        state = loader.state_dict()
    with (
        build_loader(config, 1, 2) as loader,
        pytest.raises(UserError, match="of rank 0 of 2, this is rank 1 of 2; every rank needs its own state"),
    ):
        loader.load_state_dict(state)


def test_taking_just_an_epochs_batches_goes_on_with_the_next(textured: Path) -> None:
    with build_loader(loader_config(textured)) as loader:
        counts = [len(list(itertools.islice(loader, len(loader)))) for _ in range(3)]
    assert counts == [6, 6, 6]


def test_the_last_batch_of_an_epoch_counts_as_its_end(textured: Path) -> None:
    """A state taken right after an epoch's last batch, as a training loop does it."""
    config = loader_config(textured, batch_size=8)
    with build_loader(config, 0, 2) as loader:
        batches = iter(loader)
        for _ in range(len(loader)):
            next(batches)
        state = loader.state_dict()
    assert state["batch"] == state["batches"]
    with build_loader(config, 0, 2) as loader:
        loader.load_state_dict(state)
        assert (loader.epoch, loader.batch) == (1, 0)
    with build_loader(config) as loader:
        loader.load_state_dict(state)
        assert (loader.epoch, loader.batch) == (1, 0)


def test_a_state_of_other_data_or_config_is_refused(textured: Path, flat: Path) -> None:
    with build_loader(loader_config(textured)) as loader:
        state = loader.state_dict()
    with (
        build_loader(loader_config(textured, seed=1)) as loader,
        pytest.raises(UserError, match="its seed was 0, now it is 1"),
    ):
        loader.load_state_dict(state)
    with build_loader(loader_config(flat)) as loader, pytest.raises(UserError, match="its data was"):
        loader.load_state_dict(state)


def test_a_moved_data_set_resumes(textured: Path, tmp_path: Path) -> None:
    with build_loader(loader_config(textured)) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        expected = signature(next(batches))
    moved = shutil.copytree(textured, tmp_path / "elsewhere")
    with build_loader(loader_config(moved)) as loader:
        loader.load_state_dict(state)
        assert signature(next(iter(loader))) == expected


def test_a_closed_loader_says_so(textured: Path) -> None:
    loader = build_loader(loader_config(textured))
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


def test_closing_leaves_no_thread_and_no_process(textured: Path) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def one() -> None:
        loader = build_loader(loader_config(textured))
        next(iter(loader))
        loader.close()

    one()  # what stays for good is there after the first
    before = threads()
    for _ in range(3):
        one()
    assert threads() <= before
    assert not multiprocessing.active_children()


def test_leaving_the_interpreter_in_mid_epoch_is_clean(textured: Path) -> None:
    program = (
        "from pathlib import Path; from tests.pipelines.test_loader import loader_config, build_loader;"
        f"loader = build_loader(loader_config(Path({str(textured)!r}))); batches = iter(loader);"
        "next(batches)"
    )
    ended = programs.run_text(program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_bad_options_are_errors(textured: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.shards=.*nowhere: does not exist"):
        build_loader(loader_config(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"data.batch_size=8: must be divisible by the number of ranks, 3"):
        build_loader(loader_config(textured), 0, 3)
    with pytest.raises(UserError, match=r"=63: .* has 50 photos; on 3 rank.* a batch may have 48 at most"):
        build_loader(loader_config(textured, batch_size=63), 0, 3)
    with pytest.raises(UserError, match="two photos at least"):
        build_loader(loader_config(textured), 0, 8)
