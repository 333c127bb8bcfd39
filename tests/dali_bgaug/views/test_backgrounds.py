"""Who lends whom a background."""

import numpy as np
import pytest

from dali_bgaug.views.backgrounds import choose_donors, draw_others


def _choose(wanted: np.ndarray, usable: np.ndarray, share: int, seed: int, treatments=(0, 0)) -> np.ndarray:
    return choose_donors(wanted, usable, treatments, share, np.random.default_rng(seed))


@pytest.mark.parametrize("share", [1, 4, 100])
def test_a_donor_is_uniform_over_the_other_usable_photos(share: int) -> None:
    usable = np.array([True, False, True, True, False, True, True, True])
    wanted = np.ones((8, 2), bool)
    wanted[3, 1] = False
    chosen = np.stack([_choose(wanted, usable, share, seed) for seed in range(4000)])
    assert (chosen[:, 3, 1] == -1).all()
    for photo in range(8):
        others = [other for other in range(8) if usable[other] and other != photo]
        rates = np.array([(chosen[:, photo, 0] == other).mean() for other in others])
        assert rates.sum() == pytest.approx(1)
        p = 1 / len(others)
        assert np.abs(rates - p).max() < 4.5 * np.sqrt(p * (1 - p) / 4000)
    both = chosen[:, [0, 1, 2, 4, 5, 6, 7]]
    assert (both[..., 0] != both[..., 1]).all()  # two views of a photo never share


@pytest.mark.parametrize(("share", "donors"), [(1, 40), (2, 20), (4, 10), (16, 3)])
def test_donors_are_shared(share: int, donors: int) -> None:
    """40 views take their donors out of so many; three at least, for a choice."""
    wanted = np.zeros((100, 2), bool)
    wanted[:20] = True
    chosen = _choose(wanted, np.ones(100, bool), share, 0)
    found = np.unique(chosen[wanted])
    assert 0.7 * donors * (1 - np.exp(-share)) < len(found) <= donors
    assert (chosen[~wanted] == -1).all()


def test_a_donor_has_one_look() -> None:
    wanted = np.ones((32, 2), bool)
    chosen = _choose(wanted, np.ones(32, bool), 4, 0, treatments=(0, 1))
    assert not set(chosen[:, 0]) & set(chosen[:, 1])


def test_a_second_look_in_a_tiny_batch_shares_donors() -> None:
    chosen = _choose(np.ones((2, 2), bool), np.ones(2, bool), 4, 0, treatments=(0, 1))
    assert chosen.tolist() == [[1, 1], [0, 0]]


def test_no_donor_is_said() -> None:
    wanted = np.ones((3, 2), bool)
    assert _choose(wanted, np.array([False, True, False]), 4, 0).tolist() == [[1, 1], [-1, -1], [1, 1]]
    assert (_choose(wanted, np.zeros(3, bool), 4, 0) == -1).all()
    assert (_choose(~wanted, np.ones(3, bool), 4, 0) == -1).all()


@pytest.mark.parametrize(("size", "negatives"), [(2, 1), (5, 4), (8, 3)])
def test_negatives_are_of_other_photos_all_different(size: int, negatives: int) -> None:
    drawn = np.stack([draw_others(size, negatives, np.random.default_rng(seed)) for seed in range(200)])
    assert drawn.shape == (200, size, negatives)
    for photo in range(size):
        assert set(np.unique(drawn[:, photo])) == set(range(size)) - {photo}
    assert all(len(set(row)) == negatives for batch in drawn for row in batch.tolist())
