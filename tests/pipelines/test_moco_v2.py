"""Backgrounds, pixel by pixel, on flat photos: photo i has background 2 i and a white square as
foreground."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dali_bgaug.views.options import BackgroundOptions, NormaliseOptions
from pipelines import LoaderConfig, build_loader
from tests.helpers.loaders import PLAIN, levels_of

FLAGGED = range(4)
"""Photos of the flat set without a mask, so without a tile."""


def _config(shards: Path, **background: object) -> LoaderConfig:
    return LoaderConfig(
        shards=shards,
        batch_size=32,
        device="cpu",
        photometric=PLAIN,
        crop={"size": 32, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]},  # the whole photo
        background=BackgroundOptions(**background),
        normalise=NormaliseOptions(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        threads=2,
    )


def _epochs(config: LoaderConfig, count: int) -> list[dict[str, np.ndarray]]:
    """Batches with views as grey levels uint8 [N, size, size]."""
    batches = []
    with build_loader(config) as loader:
        for _ in range(count):
            for batch in loader:
                found = {name: tensor.numpy() for name, tensor in batch.items()}
                for name in ("query", "key", "negative_0"):
                    if name in found:
                        levels = found[name] * 255
                        assert np.abs(levels - levels[:, :1]).max() < 1e-3  # grey
                        found[name] = levels[:, 0].round().astype(np.uint8)
                batches.append(found)
    return batches


def _photo(levels: np.ndarray) -> np.ndarray:
    """Which photo a background level belongs to."""
    return levels // 2


def test_p_0_changes_nothing(flat: Path) -> None:
    for kind in ("none", "rm", "random", "swaps"):
        for batch in _epochs(_config(flat, kind=kind, p_pos=0.0, p_neg=0.0), 1):
            assert not batch["replaced"].any()
            for query, key in zip(batch["query"], batch["key"], strict=True):
                background, foreground = levels_of(query)
                assert foreground == 255
                assert background % 2 == 0
                assert np.array_equal(query, key)


def test_rm_with_p_1_gives_one_grey_level(flat: Path) -> None:
    levels = []
    for batch in _epochs(_config(flat, kind="rm", p_pos=1.0), 8):
        for number, name in enumerate(("query", "key")):
            for view, replaced in zip(batch[name], batch["replaced"][:, number], strict=True):
                background, foreground = levels_of(view)
                assert foreground == 255
                if replaced:
                    levels.append(background)
                else:  # no mask: nothing to put another background behind
                    assert _photo(background) in FLAGGED
    levels = np.sort(levels)
    assert len(levels) == 8 * 2 * 60
    # Uniform over 0 .. 255: Kolmogorov-Smirnov at 0.1 %.
    assert np.abs(levels / 255 - (np.arange(len(levels)) + 0.5) / len(levels)).max() < 1.95 / np.sqrt(
        len(levels)
    )


def test_random_with_p_1_takes_another_photos_tile(flat: Path) -> None:
    """Query and key each get the flat background of a photo that is not their own and not flagged."""
    seen = []
    for batch in _epochs(_config(flat, kind="random", p_pos=1.0, views_per_donor=1), 8):
        for query, key, replaced in zip(batch["query"], batch["key"], batch["replaced"], strict=True):
            parts = levels_of(query), levels_of(key)
            assert parts[0][1] == parts[1][1] == 255
            if replaced.all():
                seen.append([parts[0][0], parts[1][0]])
            else:
                assert not replaced.any()
                assert np.array_equal(query, key)
                assert _photo(parts[0][0]) in FLAGGED
    assert len(seen) == 8 * 60
    donors = _photo(np.array(seen))
    assert not np.isin(donors, FLAGGED).any()
    assert set(np.unique(donors)) == set(range(4, 64))
    # Independent: with 60 donors two draws are rarely the same.
    assert (donors[:, 0] == donors[:, 1]).mean() < 0.06


def test_a_donor_is_never_the_photo_itself(textured: Path) -> None:
    """With sources: every replaced background differs from the photo's own tile."""
    config = LoaderConfig(
        shards=textured,
        batch_size=16,
        device="cpu",
        photometric=PLAIN,
        crop={"size": 32, "scale": [1.0, 1.0], "flip_p": 0.0},
        background={"kind": "random", "p_pos": 1.0},
    )
    with build_loader(config, with_sources=True) as loader:
        for _ in range(4):
            for batch in loader:
                tile = torch.nn.functional.interpolate(batch["tile"].permute(0, 3, 1, 2).float(), size=8)
                view = batch["query"] * torch.tensor(config.normalise.std)[:, None, None]
                view = 255 * (view + torch.tensor(config.normalise.mean)[:, None, None])
                corner = torch.nn.functional.interpolate(view, size=8)
                distance = (tile[:, :, 0] - corner[:, :, 0]).abs().mean(dim=(1, 2))
                assert distance.min() > 4


@pytest.mark.parametrize("kind", ["rm", "random", "swaps"])
def test_the_rate_is_p_and_views_are_independent(flat: Path, kind: str) -> None:
    batches = _epochs(_config(flat, kind=kind, p_pos=0.2), 32)
    coins = np.concatenate([batch["replaced"] for batch in batches])
    # Photos without a mask keep their background; where nothing was replaced, a photo is told by its level.
    unmasked = 32 * len(FLAGGED)
    count = len(coins) - unmasked
    assert count == 32 * 60
    coins = np.concatenate([coins[coins.any(axis=1)], coins[~coins.any(axis=1)][unmasked:]])
    bound = 4 * np.sqrt(0.2 * 0.8 / count)
    assert np.abs(coins.mean(axis=0) - 0.2).max() < bound
    assert abs((coins[:, 0] & coins[:, 1]).mean() - 0.04) < 4 * np.sqrt(0.04 * 0.96 / count)


def test_replaced_says_what_the_pixels_say(flat: Path) -> None:
    for batch in _epochs(_config(flat, kind="random", p_pos=0.5), 4):
        for query, key, (q, k) in zip(batch["query"], batch["key"], batch["replaced"], strict=True):
            if not q and not k:
                assert np.array_equal(query, key)
            elif q != k:
                assert levels_of(query)[0] != levels_of(key)[0]


def test_the_matched_negative_has_the_querys_background(flat: Path) -> None:
    """p_neg = 1: outside the foreground the negative is the query, inside it is another photo's key."""
    for p_pos in (0.0, 1.0):
        for batch in _epochs(_config(flat, kind="swaps", p_pos=p_pos, p_neg=1.0), 4):
            for query, negative, [matched] in zip(
                batch["query"], batch["negative_0"], batch["matched"], strict=True
            ):
                background, _ = levels_of(query)
                assert matched or _photo(background) in FLAGGED
                assert (levels_of(negative)[0] == background) == matched
                assert levels_of(negative)[1] == 255  # a photo's middle is white


def test_an_unmatched_negative_is_another_photo(flat: Path) -> None:
    """p_neg = 0: the negative is a whole photo, with its own background, never the query's."""
    for batch in _epochs(_config(flat, kind="swaps", p_pos=0.0, p_neg=0.0), 8):
        for query, negative in zip(batch["query"], batch["negative_0"], strict=True):
            assert levels_of(query)[0] != levels_of(negative)[0]
            assert levels_of(negative)[1] == 255


def test_the_rate_of_matched_negatives_is_p_neg(flat: Path) -> None:
    same, coins = [], []
    for batch in _epochs(_config(flat, kind="swaps", p_pos=0.0, p_neg=0.2), 30):
        for query, negative, [matched] in zip(
            batch["query"], batch["negative_0"], batch["matched"], strict=True
        ):
            if _photo(levels_of(query)[0]) not in FLAGGED:
                same.append(levels_of(negative)[0] == levels_of(query)[0])
                coins.append(matched)
    for rate in (np.mean(same), np.mean(coins)):
        assert abs(rate - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(same))


def test_background_warmup_rises_from_zero(flat: Path) -> None:
    """Linear over 20 epochs of two batches: half of p_pos after ten."""
    batches = _epochs(_config(flat, kind="rm", p_pos=1.0, warmup_epochs=20), 30)
    rate = np.array([batch["replaced"].mean() for batch in batches])
    assert rate[0] == 0.0
    masked = 60 / 64
    assert rate[40:].mean() == pytest.approx(masked)
    expected = np.arange(40) / 40 * masked
    assert np.abs(rate[:40] - expected).max() < 5 * 0.5 / np.sqrt(64)


def test_crop_boxes_hold_foreground(flat: Path) -> None:
    """End to end: with fg_min, every view of a photo with a mask shows at least that much of the white
    square."""
    config = LoaderConfig(
        shards=flat, batch_size=32, device="cpu", crop={"size": 64, "scale": [0.1, 0.3], "fg_min": 0.4}
    )
    with build_loader(config, with_sources=True) as loader:
        for _ in range(4):
            for batch in loader:
                y0, x0, y1, x1 = batch["crop_box"].permute(2, 0, 1)
                left, right = torch.minimum(x0, x1), torch.maximum(x0, x1)
                inside = (y1.clamp(max=0.75) - y0.clamp(min=0.25)).clamp(min=0) * (
                    right.clamp(max=0.75) - left.clamp(min=0.25)
                ).clamp(min=0)
                whole = (y1 - y0 > 0.99) & (right - left > 0.99)  # the central fallback
                has_mask = (batch["mask"] > 0).flatten(1).any(dim=1)
                share = inside / 0.25
                assert (share[has_mask] >= 0.4 - 1e-3).logical_or(whole[has_mask]).all()
