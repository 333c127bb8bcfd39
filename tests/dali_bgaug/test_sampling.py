"""Which samples a rank reads, and in which order: laws, without any data."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest

from dali_bgaug.sampling import EpochShard, Piece, Sampler, Seeds, cut, shuffle

SIZES = [7, 0, 30, 1, 12, 50, 3]
SAMPLES = sum(SIZES)


def _sampler(
    rank: int = 0, ranks: int = 1, size: int = 5, buffer: int = 20, seed: int = 3, complete: bool = False
) -> Sampler:
    return Sampler(SIZES, EpochShard(SAMPLES, size, rank, ranks, complete), seed, buffer)


def _rows(sampler: Sampler, epoch: int) -> list[tuple[int, int]]:
    draws = itertools.islice(sampler.draws(epoch), len(sampler.epoch_shard))
    return [(shard, row) for draw in draws for shard, row in draw.rows.tolist()]


def test_random_numbers_depend_on_seed_name_rank_epoch_and_batch_only() -> None:
    def numbers(seed: int = 7, rank: int = 0, epoch: int = 0, name: str = "a") -> list[bytes]:
        return [Seeds(seed, rank).generator(name, epoch, batch).random(4).tobytes() for batch in range(3)]

    streams = [numbers(), numbers(seed=8), numbers(rank=1), numbers(epoch=3), numbers(name="b")]
    assert len({batch for stream in streams for batch in stream}) == 15
    assert numbers() == streams[0]


@pytest.mark.parametrize("count", [0, 1, 5, 100])
@pytest.mark.parametrize("buffer", [1, 3, 100, 1000])
def test_a_shuffle_gives_every_number_once_and_none_before_it_is_in_reach(count: int, buffer: int) -> None:
    order = list(shuffle(count, buffer, np.random.default_rng(0)))
    assert sorted(order) == list(range(count))
    assert all(number < drawn + buffer for drawn, number in enumerate(order))
    if buffer == 1:
        assert order == list(range(count))


def test_a_shuffle_of_all_is_uniform() -> None:
    """Of 24 orders of four numbers each comes as often: chi-squared of 23 degrees, its 99.99 % bound."""
    counts: dict[tuple[int, ...], int] = {}
    generator = np.random.default_rng(0)
    for _ in range(4800):
        order = tuple(shuffle(4, 4, generator))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 58


def test_a_part_of_a_row_of_shards_is_cut_by_hand() -> None:
    assert cut([7, 0, 30], [4, 1, 2], 0, 37) == [Piece(4, 0, 7), Piece(2, 0, 30)]
    assert cut([7, 0, 30], [4, 1, 2], 5, 9) == [Piece(4, 5, 7), Piece(2, 0, 2)]
    assert cut([7, 0, 30], [4, 1, 2], 7, 8) == [Piece(2, 0, 1)]
    assert cut([7, 0, 30], [4, 1, 2], 36, 37) == [Piece(2, 29, 30)]
    assert cut([7, 0, 30], [4, 1, 2], 9, 9) == []


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("buffer", [1, 20, 1000])
def test_ranks_read_disjoint_samples_and_others_each_epoch(ranks: int, buffer: int) -> None:
    samplers = [_sampler(rank, ranks, buffer=buffer) for rank in range(ranks)]
    every = {(shard, row) for shard, size in enumerate(SIZES) for row in range(size)}
    epochs = []
    for epoch in range(2):
        parts = [_rows(sampler, epoch) for sampler in samplers]
        assert len({len(part) for part in parts}) == 1
        together = [row for part in parts for row in part]
        assert len(set(together)) == len(together) and set(together) <= every
        assert SAMPLES - len(together) < 5 * ranks
        epochs.append(parts)
    assert epochs[0] != epochs[1]
    assert ranks == 1 or {*epochs[0][0]} != {*epochs[1][0]}
    assert _rows(_sampler(0, ranks, buffer=buffer, seed=4), 0) != epochs[0][0]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_complete_epoch_is_in_order_and_padded_with_the_last_sample(ranks: int) -> None:
    found = []
    for rank in range(ranks):
        sampler = _sampler(rank, ranks, size=8, buffer=0, complete=True)
        rows, own = _rows(sampler, 0), sampler.epoch_shard.own
        assert rows == _rows(sampler, 1)
        assert set(rows[own:]) <= {rows[own - 1]}
        found += rows[:own]
    assert found == [(shard, row) for shard, size in enumerate(SIZES) for row in range(size)]


@pytest.mark.parametrize("batch", [0, 1, 4, 9])
@pytest.mark.parametrize("buffer", [1, 20, 1000])
def test_draws_from_a_batch_on_are_those_of_before(batch: int, buffer: int) -> None:
    sampler = _sampler(1, 2, buffer=buffer)
    whole = list(itertools.islice(sampler.draws(2), 25))
    for before, again in zip(whole[batch:], sampler.draws(2, batch), strict=False):
        assert (before.epoch, before.batch) == (again.epoch, again.batch)
        assert np.array_equal(before.rows, again.rows)
        assert before.done == again.done


@pytest.mark.parametrize("buffer", [1, 20, 1000])
@pytest.mark.parametrize("first", [0, 4])
def test_samples_are_announced_before_they_are_drawn_and_shards_done_after(buffer: int, first: int) -> None:
    sampler = _sampler(1, 2, buffer=buffer)
    for begin in (first, 0):
        draws = itertools.islice(sampler.draws(1, begin), 10 - begin)
        announced: set[tuple[int, int]] = set()
        released: set[int] = set()
        for draw in draws:
            for shard, start, stop in draw.coming:
                new = {(shard, row) for row in range(start, stop)}
                assert not new & announced
                announced |= new
            assert {*map(tuple, draw.rows.tolist())} <= announced
            assert not released & {*draw.rows[:, 0].tolist()}
            released |= {*draw.done}
        assert released == {shard for shard, _ in announced}


def test_a_rank_of_many_plans_its_part_of_a_hundred_million_samples_in_seconds() -> None:
    """What it keeps grows with the shards and its buffer, not with samples."""
    sampler = Sampler([10_000] * 10_000, EpochShard(10**8, 64, 17, 64), 0, 4096)
    tracemalloc.start()
    start = time.process_time()
    draws = sampler.draws(5)
    first = next(draws)
    seconds = time.process_time() - start
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first.rows.shape == (64, 2)
    assert sum(piece.stop - piece.start for piece in sampler.pieces(5)) == 1_562_500
    assert len(sampler.pieces(5)) in (157, 158)
    assert seconds < 5 and most < 64e6 and held < 32e6
