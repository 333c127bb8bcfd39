"""The yardstick's batches, pixel by pixel."""

import multiprocessing
import pickle
from pathlib import Path

import pytest
import torch
import torchvision.transforms.functional as F

from dali_bgaug.errors import UserError
from dali_bgaug.shards import Sample, read_manifest, read_samples
from pipelines import LoaderConfig, torchvision_loader
from pipelines.torchvision_loader import Batches, TorchvisionLoader
from pipelines.torchvision_views import decode
from tests.helpers.loaders import PLAIN

FLAGGED = range(4)
"""Photos of the flat set without a mask, so without a tile."""


def _config(shards: Path, pipeline: str = "moco_v2", **values: object) -> LoaderConfig:
    """Small views of whole photos, and pixels from 0 to 1."""
    defaults = {
        "batch_size": 32,
        "device": "cpu",
        "photometric": PLAIN,
        "crop": {"size": 32, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
        "normalise": {"mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    return LoaderConfig(shards=shards, pipeline=pipeline, **{**defaults, **values})


def _epoch(config: LoaderConfig, *ranks: int) -> list[dict[str, torch.Tensor]]:
    with TorchvisionLoader(config, *ranks, workers=0) as loader:
        return list(loader)


def _levels(views: torch.Tensor) -> tuple[list[int], list[int]]:
    """The levels of 0 to 255 outside and inside the square of views of flat photos, [N, 3, 32, 32]."""
    levels = (views * 255).round().int()
    outside, inside = levels[:, :, :6].flatten(1), levels[:, :, 10:22, 10:22].flatten(1)
    assert (outside == outside[:, :1]).all()
    assert (inside == inside[:, :1]).all()
    return outside[:, 0].tolist(), inside[:, 0].tolist()


SWAV = {"global": {"crop": {"size": 32}}, "local": {"count": 3, "crop": {"size": 16}}}


@pytest.mark.parametrize(
    ("pipeline", "values", "shapes"),
    [
        ("supervised", {}, {"image": (8, 3, 24, 24)}),
        ("supervised", {"background": {"kind": "rm", "p_pos": 1.0}}, {"image": (8, 3, 24, 24)}),
        ("byol", {"background": {"kind": "random"}}, {"view_1": (8, 3, 24, 24), "view_2": (8, 3, 24, 24)}),
        (
            "swav",
            {"background": {"kind": "random"}, "views": SWAV, "crop": {"fg_min": 0.1}},
            {f"global_{n}": (8, 3, 32, 32) for n in range(2)}
            | {f"local_{n}": (8, 3, 16, 16) for n in range(3)},
        ),
        ("rotnet", {"background": {"kind": "random"}}, {"image": (8, 4, 3, 24, 24)}),
        ("moco_v2", {"half": True}, {"query": (8, 3, 24, 24), "key": (8, 3, 24, 24)}),
        (
            "moco_v2",
            {"background": {"kind": "swaps", "negatives": 2}},
            {name: (8, 3, 24, 24) for name in ("query", "key", "negative_0", "negative_1")},
        ),
        (
            "moco_v2",
            {"background": {"kind": "swaps", "distortion": {"rotate": 20.0, "translate": 0.1}}},
            {name: (8, 3, 24, 24) for name in ("query", "key", "negative_0")},
        ),
    ],
)
def test_batches_of_every_method(
    textured: Path, pipeline: str, values: dict, shapes: dict[str, tuple[int, ...]]
) -> None:
    config = LoaderConfig(
        shards=textured,
        **{
            "pipeline": pipeline,
            "batch_size": 8,
            "device": "cpu",
            "crop": {"size": 24, "fg_min": 0.1},
            **values,
        },
    )
    batches = _epoch(config)
    assert len(batches) == 6
    for batch in batches:
        views = {name: view for name, view in batch.items() if view.is_floating_point()}
        assert {name: tuple(view.shape) for name, view in views.items()} == shapes
        for view in views.values():
            assert view.dtype == (torch.float16 if config.half else torch.float32)
            assert view.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)
            assert -2.2 < view.min() < view.max() < 2.7
        swaps = config.background.kind == "swaps"
        assert batch["replaced"].shape == (8, len(shapes) - (config.background.negatives if swaps else 0))
        assert batch["label"].dtype == torch.int64
        assert set(batch["label"].tolist()) <= {0, 1, 2}
        extra = {"matched"} if swaps else set()
        assert batch.keys() - views.keys() == {"replaced", "label"} | extra
        if swaps:
            assert batch["matched"].shape == (8, config.background.negatives)
            assert batch["matched"].dtype == torch.bool
    assert list(views) == list(shapes)


def test_normalising(flat: Path) -> None:
    config = _config(flat, "supervised", normalise={"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2.0]})
    [plain, *_], [batch, *_] = _epoch(_config(flat, "supervised")), _epoch(config)
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.5, 0.25, 2.0])[:, None, None]
    torch.testing.assert_close(batch["image"], (plain["image"] - mean) / std, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("donor", ["full", "crop", "none"])
def test_a_replaced_background_is_that_of_another_photo(flat: Path, donor: str) -> None:
    background = {"kind": "random", "p_pos": 0.5, "donor": donor}
    replacements = 0
    for batch in _epoch(_config(flat, background=background, views={"query": {"background": False}})):
        own, _ = _levels(batch["query"])
        behind, inside = _levels(batch["key"])
        assert not batch["replaced"][:, 0].any()
        for place, replaced in enumerate(batch["replaced"][:, 1].tolist()):
            photo = own[place] // 2
            assert inside[place] == 255
            assert (behind[place] != own[place]) == replaced
            assert behind[place] in own
            if replaced:
                assert photo not in FLAGGED  # nothing would be left of it
                assert behind[place] // 2 not in FLAGGED
        replacements += int(batch["replaced"].sum())
    assert 15 < replacements < 45


def test_removed_backgrounds_are_grey_levels_in_range(flat: Path) -> None:
    background = {"kind": "rm", "p_pos": 1.0, "grey": [0.25, 0.5]}
    levels = []
    for batch in _epoch(_config(flat, "supervised", background=background)):
        behind, inside = _levels(batch["image"])
        replaced = batch["replaced"][:, 0].tolist()
        assert set(inside) == {255}
        levels += [level for level, its in zip(behind, replaced, strict=True) if its]
        assert sum(replaced) >= 28
    assert 64 <= min(levels) <= max(levels) <= 128
    assert len(set(levels)) > 20


def test_before_the_look_comes_the_background(flat: Path) -> None:
    """RotNet: the photo's background is replaced, and solarizing turns what it was replaced by."""
    look = PLAIN.replaced(solarize_p=1.0)
    background = {"kind": "rm", "p_pos": 1.0, "grey": [0.75, 0.75]}
    for stage, level in (("before", 255 - 191), ("after", 191)):
        config = _config(flat, "supervised", background={**background, "stage": stage}, photometric=look)
        for batch in _epoch(config):
            behind, inside = _levels(batch["image"])
            replaced = batch["replaced"][:, 0].tolist()
            assert set(inside) == {0}
            assert {behind[place] for place in range(32) if replaced[place]} == {level}


def test_rotnet_turns_counter_clockwise(textured: Path) -> None:
    config = LoaderConfig(shards=textured, pipeline="rotnet", batch_size=8, device="cpu", crop={"size": 24})
    images = _epoch(config)[0]["image"]
    for turns in range(4):
        assert torch.equal(images[:, turns], images[:, 0].rot90(turns, (2, 3)))
    assert torch.equal(images[:, 1, :, 23, 0], images[:, 0, :, 0, 0])  # top left goes to bottom left


@pytest.mark.parametrize("matches", ["query", "key"])
@pytest.mark.parametrize("coupled", [False, True])
def test_matched_negatives(flat: Path, matches: str, coupled: bool) -> None:
    """A matched negative has the background of the finished view; any other is another photo's key."""
    background = {
        "kind": "swaps", "p_pos": 0.5, "p_neg": 0.5, "negatives": 2, "matches": matches, "coupled": coupled
    }  # fmt: skip
    for batch in _epoch(_config(flat, background=background)):
        view, _ = _levels(batch[matches])
        negatives = [_levels(batch[f"negative_{number}"])[0] for number in range(2)]
        matched = batch["matched"].tolist()
        for place in range(32):
            for number in range(2):
                same = negatives[number][place] == view[place]
                assert not matched[place][number] or same
        key_replaced = batch["replaced"][:, 1].tolist()
        if coupled:
            assert matched == [[its, its] for its in key_replaced]
        else:
            assert 16 < batch["matched"].sum() < 48


def test_an_unmatched_negative_is_the_key_of_another_photo(flat: Path) -> None:
    """Of two photos each gets the other's background; the negative of one is the key of the other."""
    background = {"kind": "swaps", "p_pos": 1.0, "p_neg": 0.0, "matches": "key"}
    views, both = {"query": {"background": False}}, 0
    for batch in _epoch(_config(flat, batch_size=2, background=background, views=views)):
        one, other = _levels(batch["query"])[0]
        assert not batch["matched"].any()
        assert torch.equal(batch["negative_0"], batch["key"].flip(0))
        if batch["replaced"][:, 1].all():
            assert _levels(batch["key"])[0] == [other, one]
            both += 1
    assert both > 20


def test_background_warmup_rises_from_zero(flat: Path) -> None:
    config = _config(flat, batch_size=16, background={"kind": "rm", "p_pos": 1.0, "warmup_epochs": 2})
    with TorchvisionLoader(config, workers=0) as loader:
        shares = [batch["replaced"].float().mean().item() for _ in range(3) for batch in loader]
    assert shares[0] == 0
    assert 0.2 < sum(shares[2:7]) / 5 < 0.7
    assert min(shares[8:]) > 0.7  # all but photos without foreground


def test_photos_are_decoded_once_and_tiles_for_views_that_use_one(
    flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    monkeypatch.setattr(torchvision_loader, "decode", lambda data: decoded.append(len(data)) or decode(data))
    for p in (0.0, 0.5):
        decoded.clear()
        batches = _epoch(_config(flat, background={"kind": "random", "p_pos": p}))
        replaced = sum(int(batch["replaced"].sum()) for batch in batches)
        assert 64 + (p > 0) <= len(decoded) <= 64 + replaced


# Epochs, ranks, processes


def _packed(shards: Path) -> list[Sample]:
    """All samples as they lie in the shards."""
    return [sample for shard in read_manifest(shards).shards for sample in read_samples(shards, shard)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_photo_twice_in_an_epoch_and_others_each_epoch(flat: Path, world_size: int) -> None:
    epochs: list[list[int]] = [[], []]
    for rank in range(world_size):
        config = _config(flat, "supervised", batch_size=5 * world_size)
        with TorchvisionLoader(config, rank, world_size, workers=0) as loader:
            assert len(loader) == 64 // (5 * world_size)
            for epoch in epochs:
                epoch += [level for batch in loader for level in _levels(batch["image"])[0]]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 64 // (5 * world_size) * 5 * world_size
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("batch_size", "world_size"), [(24, 1), (64, 1), (24, 2), (10, 5), (128, 2)])
def test_evaluation_gives_every_photo_once_in_order(flat: Path, batch_size: int, world_size: int) -> None:
    config = _config(flat, "evaluation", batch_size=batch_size, resize=32)
    found, lengths = [], set()
    for rank in range(world_size):
        batches = _epoch(config, rank, world_size)
        lengths.add(len(batches))
        for batch in batches:
            assert batch.keys() == {"image", "label", "valid"}
            levels = _levels(batch["image"])[0]
            assert len(levels) == batch_size // world_size
            found += [level for level, valid in zip(levels, batch["valid"].tolist(), strict=True) if valid]
    assert found == [decode(sample.photo).getpixel((0, 0))[0] for sample in _packed(flat)]
    assert lengths == {-(-64 // batch_size)}


def test_evaluation_is_torchvisions_resize_and_central_crop(textured: Path) -> None:
    config = _config(textured, "evaluation", batch_size=20, crop={"size": 64}, resize=81)
    images = torch.cat([batch["image"] for batch in _epoch(config)])
    for image, sample in zip(images, _packed(textured)):
        photo = F.center_crop(F.resize(decode(sample.photo), 81), 64)
        torch.testing.assert_close(image, F.to_tensor(photo))


def test_workers_give_the_same_batches_and_end_with_the_loader(textured: Path) -> None:
    config = LoaderConfig(
        shards=textured, batch_size=16, device="cpu", crop={"size": 24}, background={"kind": "swaps"}
    )
    with TorchvisionLoader(config, workers=0) as loader:
        expected = [batch for _ in range(2) for batch in loader]
    with TorchvisionLoader(config, workers=2) as loader:
        found, workers = [], set()
        for _ in range(2):
            found += list(loader)
            workers |= {child.pid for child in multiprocessing.active_children()}
    assert len(workers) == 2
    assert not multiprocessing.active_children()
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(expected[0]["query"], expected[3]["query"])


def test_a_closed_loader_says_so_also_when_closed_amid_an_epoch(textured: Path) -> None:
    loader = TorchvisionLoader(_config(textured, batch_size=8), workers=1)
    batches = iter(loader)
    next(batches)
    loader.close()
    assert not multiprocessing.active_children()
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


def test_open_files_are_few_and_stay_behind_when_pickled(
    textured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_loader, "_OPEN_FILES", 2)
    batches = Batches(_config(textured), 0, 1)
    photos = [batches.samples[number].photo for number in range(50)]  # 4 shards
    assert len(batches.samples._files) == 2
    copy = pickle.loads(pickle.dumps(batches)).samples
    assert not copy._files
    assert [copy[number].photo for number in range(50)] == photos
    for shards in (batches.samples, copy):
        shards.close()
        assert not shards._files


def test_bad_options_are_errors(textured: Path) -> None:
    with pytest.raises(UserError, match="batch_size=8: not divisible by 3 ranks"):
        TorchvisionLoader(_config(textured, batch_size=8), 0, 3)
    with pytest.raises(UserError, match="batch_size=64: only 50 photos"):
        TorchvisionLoader(_config(textured, batch_size=64))
    with pytest.raises(UserError, match="two photos a rank"):
        TorchvisionLoader(_config(textured, batch_size=2, background={"kind": "swaps"}), 0, 2)
