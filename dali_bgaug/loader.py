"""A DALI pipeline as an iterator of torch tensors: epochs, exact resume, clean shutdown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline

from dali_bgaug.errors import UserError

STATE_VERSION = 1


@dataclass(frozen=True)
class Share:
    """One rank's part of an epoch, as DALI's reader cuts it: rank r of R reads samples [r N // R, (r + 1) N
    // R).

    Shares differ by one sample at most and are padded to whole batches; every rank gives as many batches as
    the smallest share fills, so none waits for another at the end of an epoch. Of 103 samples on 2 ranks in
    batches of 10:

        rank   share   batches read   given   left out this epoch
        0      51      6              5       1
        1      52      6              5       2
    """

    samples: int
    batch_size: int
    """Photos a batch of this rank."""
    rank: int
    world_size: int

    def __len__(self) -> int:
        """Batches given per epoch, the same on every rank."""
        return self.samples // self.world_size // self.batch_size

    @property
    def padded_batches(self) -> int:
        """Batches the reader makes per epoch: the largest share, padded."""
        largest = -(-self.samples // self.world_size)
        return -(-largest // self.batch_size)


class Loader:
    """Batches of one rank: dicts of tensors on the pipeline's device, without a copy (DLPack).

    Views are float [N, 3, H, W] in channels_last memory format, `label` is int64 [N] on the CPU, other
    outputs keep their shape. Iterating gives one
    epoch, or the rest of it after `load_state_dict`; then the next. Use `close` or a `with` block to free
    threads and memory.
    """

    def __init__(
        self,
        build: Callable[[bytes | None], Pipeline],
        names: list[str],
        share: Share,
        identity: dict[str, Any],
    ) -> None:
        """Build the pipeline.

        Args:
            build: makes the pipeline, given DALI's checkpoint or None.
            names: its outputs' names, filled by `build`.
            share: this rank's part of an epoch.
            identity: what a state may only be loaded into if it is equal: data, config, rank, world size.
        """
        self._build, self._names, self._share, self._identity = build, names, share, identity
        self.epoch, self.batch = 0, 0
        self._pipeline: Pipeline | None = None
        self._start(None)

    def _start(self, checkpoint: bytes | None) -> None:
        self.close()
        self._pipeline = self._build(checkpoint)
        self._pipeline.build()
        self._scheduled = False
        self._checkpoint = checkpoint

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._share)

    @property
    def batch_size(self) -> int:
        """Photos a batch of this rank."""
        return self._share.batch_size

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the current epoch that have not been given yet."""
        while self.batch < len(self):
            batch = self._next()
            self.batch += 1
            yield batch
        for _ in range(self._share.padded_batches - len(self)):  # partly padding, on some rank
            self._next()
        self.epoch, self.batch = self.epoch + 1, 0

    def _next(self) -> dict[str, torch.Tensor]:
        pipeline = self._pipeline
        if pipeline is None:
            raise RuntimeError("this loader is closed")
        if not self._scheduled:
            pipeline.schedule_run()
            self._scheduled = True
        outputs = pipeline.outputs()
        pipeline.schedule_run()  # keep `prefetch` batches in the making while the caller works
        self._checkpoint = None
        batch = {name: _as_torch(output) for name, output in zip(self._names, outputs, strict=True)}
        batch["label"] = _labels(batch.pop("cls"))
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is: numbers, text and a uint8 tensor. The batch last given counts as done."""
        if self._checkpoint is None:
            self._checkpoint = self._pipeline.checkpoint()
        pipeline = torch.from_numpy(np.frombuffer(self._checkpoint, np.uint8).copy())
        return {
            "version": STATE_VERSION,
            "identity": dict(self._identity),
            "epoch": self.epoch,
            "batch": self.batch,
            "pipeline": pipeline,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, in this process or another.

        Raises:
            UserError: the state is of another data set, config, rank or world size.
        """
        if state["version"] != STATE_VERSION:
            raise UserError(f"loader state of version {state['version']}, this program reads {STATE_VERSION}")
        for key, value in self._identity.items():
            if state["identity"][key] != value:
                raise UserError(
                    f"cannot resume the loader: its {key} was {state['identity'][key]!r}, "
                    f"now it is {value!r}; resume with what the run was started with, or start a new run"
                )
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._start(state["pipeline"].numpy().tobytes())

    def close(self) -> None:
        """Stop the pipeline's threads and free its memory."""
        self._pipeline = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_torch(output: Any) -> torch.Tensor:
    tensor = torch.from_dlpack(output.as_tensor())
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 and tensor.is_floating_point() else tensor


def _labels(digits: torch.Tensor) -> torch.Tensor:
    """Decimal text uint8 [N, digits] -> int64 [N]."""
    places = 10 ** torch.arange(digits.shape[1] - 1, -1, -1)
    return (digits.long() - ord("0")) @ places
