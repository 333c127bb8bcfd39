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


@dataclass(frozen=True)
class Context:
    """What every graph piece needs to know.

    Random numbers are a function of (seed, rank, name, iteration) and nothing else: two ranks never share a
    stream, a new operator does not change another's, and a resumed run needs no generator's state.
    """

    device: str
    """"cpu" or "gpu": where pixels are."""
    seed: int
    rank: int
    batch_size: int

    @property
    def decoder(self) -> str:
        """The decoder's device: "mixed" takes bytes on the CPU and gives pixels on the GPU."""
        return "mixed" if self.device == "gpu" else "cpu"

    def seed_of(self, name: str, rank: int | None = None) -> int:
        """A seed in [1, 2^31) for what DALI itself draws (the reader's shuffling)."""
        words = [self.seed, self.rank if rank is None else rank, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) % (2**31 - 1) + 1

    @do_not_convert
    def draw(self, name: str, function: Draw) -> list[DataNode]:
        """The arrays `function` draws for each batch, as nodes on the CPU: one sample of each per photo."""
        words = [self.seed, self.rank, zlib.crc32(name.encode())]

        def of_batch(info: Any) -> list[np.ndarray]:
            return function(np.random.default_rng([*words, info.iteration]), info.iteration)

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
    def uniform(self, name: str, low: float, high: float, *shape: int) -> DataNode:
        """U[low, high), float32, a scalar or of `shape`, on the CPU."""
        size = (self.batch_size, *shape)
        [node] = self.draw(name, lambda rng, _: [rng.uniform(low, high, size).astype(np.float32)])
        return node

    @do_not_convert
    def coins(
        self,
        name: str,
        p: float,
        *shape: int,
        strength: Callable[[int], float] | None = None,
        dtype: Any = bool,
    ) -> DataNode:
        """True (or 1) with probability p, times `strength` of the iteration; on the CPU, as `if` wants it."""
        size = (self.batch_size, *shape)

        def toss(rng: np.random.Generator, iteration: int) -> list[np.ndarray]:
            return [(rng.random(size) < p * (strength(iteration) if strength else 1)).astype(dtype)]

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


@do_not_convert
def of_batch(function: Callable[..., Any], *inputs: DataNode, outputs: int = 1) -> Any:
    """NumPy arithmetic on small CPU nodes, one call a batch: lists of arrays in, arrays [N, ...] out."""

    def call(*columns: list[np.ndarray]) -> Any:
        results = function(*columns)
        return list(results) if outputs == 1 else tuple(list(result) for result in results)

    return fn.python_function(*inputs, function=call, batch_processing=True, num_outputs=outputs)
