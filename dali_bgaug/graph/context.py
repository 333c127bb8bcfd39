"""Backend of a graph, and every random number in it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

Draw = Callable[[np.random.Generator, int], list[np.ndarray]]
"""(generator, iteration) -> arrays whose first axis is the batch."""


@dataclass
class Context:
    """What every graph piece needs to know; one for each graph.

    Random numbers are a function of (seed, origin, rank, name, iteration) and nothing else: two ranks never
    share a stream, a new operator does not change another's, and a resumed run needs no generator's state.
    """

    device: str
    """ "cpu" or "gpu": where pixels are."""
    seed: int
    rank: int
    batch_size: int
    """This rank's."""
    origin: int = 0
    """The epoch that iteration 0 belongs to: another one, another stream."""
    hw_decoder_load: float = 0.65
    """Share of photos for the hardware decoder of a GPU."""
    compiled: bool = False
    """On the CPU: views by compiled kernels, where a GPU has operators."""
    preallocate: tuple[int, int] = (0, 0)
    """Width and height of photos a GPU decoder's memory is made for at start."""
    strength: Callable[[int], float] = lambda iteration: 1.0
    """iteration -> factor in [0, 1] on the probability of backgrounds."""
    _iteration: DataNode | None = None

    def seed_of(self, name: str, rank: int | None = None) -> int:
        """A seed in [1, 2^31) for what DALI itself draws (the reader's shuffling)."""
        words = [self.seed, self.origin, self.rank if rank is None else rank, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) % (2**31 - 1) + 1

    def generator(self, name: str, iteration: int) -> np.random.Generator:
        """The random numbers of one name in one batch."""
        words = [self.seed, self.origin, self.rank, zlib.crc32(name.encode()), iteration]
        return np.random.default_rng(words)

    @do_not_convert
    def draw(self, name: str, function: Draw) -> list[DataNode]:
        """The arrays `function` draws for each batch, as nodes on the CPU: one sample of each per photo."""

        def of_batch(info: Any) -> list[np.ndarray]:
            return function(self.generator(name, info.iteration), info.iteration)

        probe = function(np.random.default_rng(0), 0)
        nodes = fn.external_source(
            source=of_batch,
            num_outputs=len(probe),
            batch=True,
            batch_info=True,
            dtype=[_DALI_TYPES[array.dtype] for array in probe],
            ndim=[array.ndim - 1 for array in probe],
        )
        return list(nodes)

    @do_not_convert
    def of_batch(
        self, function: Callable[..., tuple[np.ndarray, ...]], *inputs: DataNode, outputs: int
    ) -> tuple[DataNode, ...]:
        """NumPy on small CPU nodes, one call a batch, for what depends on the photos.

        `function(iteration, *columns)` gets each input as a list of arrays and returns so many arrays whose
        first axis is the batch.
        """
        if self._iteration is None:
            shape = (self.batch_size,)
            [self._iteration] = self.draw("iteration", lambda _, i: [np.full(shape, i, np.int32)])

        def call(iterations: list[np.ndarray], *columns: list[np.ndarray]) -> Any:
            results = function(int(iterations[0]), *columns)
            return list(results[0]) if outputs == 1 else tuple(map(list, results))

        nodes = fn.python_function(
            self._iteration, *inputs, function=call, batch_processing=True, num_outputs=outputs
        )
        return (nodes,) if outputs == 1 else tuple(nodes)

    def to_device(self, node: DataNode) -> DataNode:
        """Move a CPU node to where pixels are."""
        return node.gpu() if self.device == "gpu" else node


_DALI_TYPES = {
    np.dtype(bool): types.BOOL,
    np.dtype(np.uint8): types.UINT8,
    np.dtype(np.int32): types.INT32,
    np.dtype(np.float32): types.FLOAT,
}


def constant(value: Any, dtype: Any, device: str, layout: str | None = None) -> DataNode:
    """The same array in every sample."""
    return types.Constant(np.asarray(value, dtype), device=device, layout=layout)
