"""The paper's options of backgrounds, on flat photos: photo i has background 2 i and a white square in the
middle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import LoaderConfig, build_loader
from tests.helpers.loaders import PLAIN, levels_of

TILE = {"kind": "random", "p_pos": 1.0}


def _batches(shards: Path, epochs: int = 2, **values: Any) -> list[dict[str, np.ndarray]]:
    """Views of whole photos as grey levels uint8 [N, 32, 32]."""
    defaults = {
        "batch_size": 32,
        "device": "cpu",
        "threads": 2,
        "photometric": PLAIN,
        "normalise": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
        "crop": {"size": 32, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
    }
    config = LoaderConfig(**{"shards": shards, **defaults, **values})
    found = []
    with build_loader(config) as loader:
        for batch in (batch for _ in range(epochs) for batch in loader):
            batch = {name: tensor.numpy() for name, tensor in batch.items()}
            found.append(
                {
                    name: (255 * array[:, 0]).round().astype(np.uint8) if array.ndim == 4 else array
                    for name, array in batch.items()
                }
            )
    return found


@pytest.mark.parametrize("view", ["query", "key"])
def test_query_and_key_are_switched_separately(flat: Path, view: str) -> None:
    """The paper's ablations: a background for one of the two alone."""
    other = {"query": "key", "key": "query"}[view]
    for batch in _batches(flat, background=TILE, views={other: {"background": False}}):
        number = ["query", "key"].index(view)
        assert not batch["replaced"][:, 1 - number].any()
        for one, untouched, replaced in zip(batch[view], batch[other], batch["replaced"], strict=True):
            assert (levels_of(one)[0] != levels_of(untouched)[0]) == replaced[number]


def test_grey_levels_stay_in_their_range(flat: Path) -> None:
    levels = [
        levels_of(view)[0]
        for batch in _batches(flat, 4, background={"kind": "rm", "p_pos": 1.0, "grey": [0.7, 0.8]})
        for view, replaced in zip(batch["query"], batch["replaced"][:, 0], strict=True)
        if replaced
    ]
    assert 178 <= min(levels) < 182 and 200 < max(levels) <= 204


@pytest.mark.parametrize("donor", ["full", "crop", "none"])
def test_a_donors_treatment(flat: Path, donor: str) -> None:
    """With colour drawn for views, a tile of a flat level 2 i stays 2 i unless it is treated in full."""
    look = {"jitter_p": 1.0, "brightness": 0.5, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    look |= {"grey_p": 0.0, "blur_p": 0.0}
    even = []
    for batch in _batches(flat, background=TILE | {"donor": donor}, photometric=look):
        for view, replaced in zip(batch["query"], batch["replaced"][:, 0], strict=True):
            if replaced:
                even.append(levels_of(view)[0] % 2 == 0)
    assert np.mean(even) == 1.0 if donor != "full" else 0.3 < np.mean(even) < 0.7


@pytest.mark.parametrize("stage", ["before", "after"])
def test_a_background_before_shares_the_views_look(flat: Path, stage: str) -> None:
    """Brightness is drawn: a middle grey put behind before it stays half as bright as the square."""
    look = {"jitter_p": 1.0, "brightness": 0.5, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    look |= {"grey_p": 0.0, "blur_p": 0.0}
    options = {"kind": "rm", "p_pos": 1.0, "grey": [0.5, 0.5], "stage": stage}
    darkened = 0
    for batch in _batches(flat, background=options, photometric=look):
        for view, replaced in zip(batch["query"], batch["replaced"][:, 0], strict=True):
            background, foreground = levels_of(view)
            if replaced and foreground < 240:
                darkened += 1
                assert abs(background - (foreground / 2 if stage == "before" else 127.5)) <= 1
    assert darkened > 30


def test_negatives_match_a_query_that_keeps_its_background(flat: Path) -> None:
    """A background for the key alone, and negatives with the query's."""
    options = {"kind": "swaps", "p_pos": 1.0, "p_neg": 1.0}
    for batch in _batches(flat, background=options, views={"query": {"background": False}}):
        assert not batch["replaced"][:, 0].any()
        assert batch["replaced"][:, 1].mean() > 0.8
        for query, negative, [matched] in zip(
            batch["query"], batch["negative_0"], batch["matched"], strict=True
        ):
            assert (levels_of(query)[0] == levels_of(negative)[0]) == matched


def test_coupled_negatives_follow_the_key(flat: Path) -> None:
    options = {"kind": "swaps", "p_pos": 0.5, "coupled": True}
    for batch in _batches(flat, background=options):
        assert np.array_equal(batch["matched"], batch["replaced"][:, 1:])
    options = {"kind": "swaps", "p_pos": 0.5, "p_neg": 0.5}
    coins = np.concatenate([
        np.stack([batch["matched"][:, 0], batch["replaced"][:, 1]]) for batch in _batches(flat, 8,
        background=options)
    ], axis=1)  # fmt: skip
    assert abs(np.corrcoef(coins)[0, 1]) < 0.2


@pytest.mark.parametrize("match", ["query", "key"])
def test_several_negatives_take_the_background_of_the_view_they_match(flat: Path, match: str) -> None:
    options = {"kind": "swaps", "p_pos": 0.5, "p_neg": 0.5, "negatives": 3, "matches": match}
    rates, other = [], []
    for batch in _batches(flat, 4, background=options):
        rates.append(batch["matched"].mean(axis=0))
        assert batch["matched"].shape == (32, 3)
        for number in range(3):
            for negative, view, matched in zip(
                batch[f"negative_{number}"], batch[match], batch["matched"][:, number], strict=True
            ):
                if matched:
                    assert levels_of(negative) == (levels_of(view)[0], 255)
        unmatched = ~batch["matched"].any(axis=1)
        first, second = (batch[f"negative_{number}"][unmatched] for number in (0, 1))
        other += [levels_of(a)[0] != levels_of(b)[0] for a, b in zip(first, second, strict=True)]
    assert np.mean(other) > 0.7
    assert np.abs(np.mean(rates, axis=0) - 0.5 * 60 / 64).max() < 0.15


def test_a_distorted_mask_moves_the_edge(flat: Path) -> None:
    """The square's box is the square. Translated by up to 4 of its 16 pixels, the mask leaves the middle of
    14 where it moves by more than 1.5 along either axis."""
    options = {"kind": "rm", "p_pos": 1.0, "grey": [0.0, 0.0]}
    for distortion, rate in (({"box": True}, 0.0), ({"translate": 0.25}, 1 - (1.5 / 4) ** 2)):
        changed = [
            bool((view[9:23, 9:23] != 255).any())
            for batch in _batches(flat, 6, background=options | {"distortion": distortion})
            for view, replaced in zip(batch["query"], batch["replaced"][:, 0], strict=True)
            if replaced
        ]
        assert len(changed) == 6 * 60
        assert abs(np.mean(changed) - rate) <= 4 * np.sqrt(rate * (1 - rate) / len(changed))


@pytest.mark.parametrize(("rule", "replaced"), [("keep", 60), ("replace", 64)])
@pytest.mark.parametrize("kind", ["rm", "random", "swaps"])
def test_photos_without_foreground(flat: Path, kind: str, rule: str, replaced: int) -> None:
    """Photos 0 to 3 have none: they keep all of themselves, or nothing."""
    options = {"kind": kind, "p_pos": 1.0, "p_neg": 1.0, "without_foreground": rule}
    batches = _batches(flat, epochs=1, background=options)
    assert [sum(batch["replaced"][:, view].sum() for batch in batches) for view in (0, 1)] == [replaced] * 2
    if kind == "swaps":
        assert sum(batch["matched"].sum() for batch in batches) == replaced
    even = [view for batch in batches for view in batch["query"] if np.ptp(view) == 0]
    assert len(even) == 64 - 60 if rule == "replace" else not even


def test_a_distortion_without_backgrounds_changes_nothing(flat: Path) -> None:
    """There are no masks then."""
    plain, distorted = (
        _batches(flat, 1, background={"kind": "none", "distortion": distortion})
        for distortion in ({}, {"rotate": 20.0})
    )
    for one, other in zip(plain, distorted, strict=True):
        assert np.array_equal(one["query"], other["query"])
