"""Random numbers and the count of batches."""

import numpy as np
from nvidia.dali import Pipeline, fn, pipeline_def, types

from dali_bgaug.reading import Seeds, choose_tiles, count_iterations


def test_random_numbers_depend_on_seed_name_rank_epoch_and_iteration_only() -> None:
    def numbers(seed: int = 7, rank: int = 0, origin: int = 0, name: str = "a") -> list[bytes]:
        seeds = Seeds(seed, rank, origin)
        return [seeds.generator(name, iteration).random(4).tobytes() for iteration in range(3)]

    streams = [numbers(), numbers(seed=8), numbers(rank=1), numbers(origin=3), numbers(name="b")]
    assert len({batch for stream in streams for batch in stream}) == 15
    assert numbers() == streams[0]


def test_dalis_seeds() -> None:
    drawn = [Seeds(7, rank).of_dali(name) for rank in range(50) for name in "abcdefghij"]
    assert len(set(drawn)) == 500
    assert min(drawn) >= 1 and max(drawn) < 2**31
    assert len({Seeds(7, rank).of_dali("epoch", rank=0) for rank in range(8)}) == 1  # the same on every rank
    assert len({Seeds(7, 0, origin).of_dali("epoch", rank=0) for origin in range(8)}) == 8


def _count(checkpoint: bytes | None = None) -> Pipeline:
    @pipeline_def(
        batch_size=2, num_threads=1, device_id=None, enable_checkpointing=True, checkpoint=checkpoint
    )
    def define() -> object:
        return count_iterations(2)

    pipeline = define()
    pipeline.build()
    return pipeline


def test_batches_are_counted_across_a_checkpoint() -> None:
    pipeline = _count()
    assert [np.asarray(pipeline.run()[0].as_tensor()).tolist() for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]
    resumed = _count(pipeline.checkpoint())
    assert np.asarray(resumed.run()[0].as_tensor()).tolist() == [3, 3]


def test_tiles_are_chosen_by_iteration_among_those_that_lend() -> None:
    asked = []

    def needed(iteration: int, lends: np.ndarray) -> np.ndarray:
        asked.append((iteration, lends.tolist()))
        return lends & (np.arange(3) != iteration)

    @pipeline_def(batch_size=3, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def define() -> object:
        tiles = [np.zeros(length, np.uint8) for length in (5, 0, 9)]
        encoded = fn.external_source(source=lambda: tiles, batch=True, dtype=types.UINT8, ndim=1)
        return choose_tiles(count_iterations(3), encoded, needed)

    pipeline = define()
    pipeline.build()
    used, lends = pipeline.run()
    assert [bool(np.asarray(used[number])) for number in range(3)] == [False, False, True]
    assert np.asarray(lends.as_tensor()).tolist() == [[True], [False], [True]]
    assert asked[0] == (0, [True, False, True])
