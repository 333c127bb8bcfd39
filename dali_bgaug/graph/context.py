"""Backend of a graph, and every random number in it."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

Draw = Callable[[np.random.Generator, int], list[np.ndarray]]
"""(generator, iteration) -> arrays whose first axis is the batch."""


class Context:
    """What every graph piece needs to know; one for each graph.

    Random numbers are a function of (seed, rank, name, iteration) and nothing else: two ranks never share a
    stream, a new operator does not change another's, and a resumed run needs no generator's state.
    """

    def __init__(self, device: str, seed: int, rank: int, batch_size: int) -> None:
        """device: "cpu" or "gpu", where pixels are; batch_size: this rank's."""
        self.device, self.seed, self.rank, self.batch_size = device, seed, rank, batch_size
        self._iteration: DataNode | None = None

    @property
    def decoder(self) -> str:
        """The decoder's device: "mixed" takes bytes on the CPU and gives pixels on the GPU."""
        return "mixed" if self.device == "gpu" else "cpu"

    def seed_of(self, name: str, rank: int | None = None) -> int:
        """A seed in [1, 2^31) for what DALI itself draws (the reader's shuffling)."""
        words = [self.seed, self.rank if rank is None else rank, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) % (2**31 - 1) + 1

    def _generator(self, name: str, iteration: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.rank, zlib.crc32(name.encode()), iteration])

    @do_not_convert
    def draw(self, name: str, function: Draw) -> list[DataNode]:
        """The arrays `function` draws for each batch, as nodes on the CPU: one sample of each per photo."""

        def of_batch(info: Any) -> list[np.ndarray]:
            return function(self._generator(name, info.iteration), info.iteration)

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
    def of_batch(self, name: str, function: Callable[..., Any], *inputs: DataNode, outputs: int = 1) -> Any:
        """NumPy on small CPU nodes, one call a batch, for what depends on the photos.

        `function(rng, iteration, *columns)` gets each input as a list of arrays and returns an array whose
        first axis is the batch (a tuple of them if `outputs` > 1).
        """
        if self._iteration is None:
            shape = (self.batch_size,)
            [self._iteration] = self.draw("iteration", lambda _, i: [np.full(shape, i, np.int32)])

        def call(iterations: list[np.ndarray], *columns: list[np.ndarray]) -> Any:
            iteration = int(iterations[0])
            results = function(self._generator(name, iteration), iteration, *columns)
            return list(results) if outputs == 1 else tuple(list(result) for result in results)

        return fn.python_function(
            self._iteration, *inputs, function=call, batch_processing=True, num_outputs=outputs
        )

    @do_not_convert
    def coins(
        self,
        name: str,
        p: float,
        *shape: int,
        strength: Callable[[int], float] | None = None,
    ) -> DataNode:
        """True with probability p, times `strength` of the iteration; on the CPU, as `if` wants it."""
        size = (self.batch_size, *shape)

        def toss(rng: np.random.Generator, iteration: int) -> list[np.ndarray]:
            return [rng.random(size) < p * (strength(iteration) if strength else 1)]

        [node] = self.draw(name, toss)
        return node

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
