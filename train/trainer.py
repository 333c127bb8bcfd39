"""The trainer: the objects of a run, its optimizer steps and epochs.

Knows nothing of what a method does inside, nor of files.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dali_bgaug.errors import UserError
from dali_bgaug.shards import manifest_digest, read_manifest
from pipelines import build_loader
from train import distributed
from train.config import RunConfig
from train.method import Batch, Method, Metrics, Progress, Setting
from train.optim import build_optimizer
from train.records import DataRecord


class Trainer(AbstractContextManager):
    """The loader, the method's networks and the optimizer of a run, and the steps it has done with them."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        """Build all of them; every rank must call this.

        Raises:
            UserError: the batch does not divide, an epoch has no step, or the method cannot be built so.
        """
        self.config, self.device = config, device
        self.amp = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
        """Whether forward passes run in bfloat16 autocast."""
        self._check()
        photos = config.data.batch_size // config.accumulate
        per_pass = config.data.replaced(batch_size=photos)
        self.loader = build_loader(per_pass, distributed.rank(), distributed.world_size())
        self.steps_per_epoch = len(self.loader) // config.accumulate
        self.steps = self.steps_per_epoch * config.epochs
        if self.steps_per_epoch == 0:
            raise UserError(
                f"accumulate={config.accumulate}: an epoch has {len(self.loader)} passes, too few for one "
                "step; take a smaller data.batch_size"
            )
        manifest = read_manifest(config.data.shards)
        self.data = DataRecord(
            photos=manifest.samples,
            classes=len(manifest.classes),
            class_names=manifest.classes,
            manifest_sha256=manifest_digest(config.data.shards),
        )
        self.method = self._build_method()
        self.module = self._distribute()
        self.optimizer = build_optimizer(self.method, config.optim)
        self.steps_done = self.first_step = 0
        self.metrics: dict[str, float] = {}
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def __exit__(self, *_: object) -> None:
        self.loader.close()

    def _check(self) -> None:
        config, ranks = self.config, distributed.world_size()
        if config.data.batch_size % (ranks * config.accumulate):
            raise UserError(
                f"data.batch_size={config.data.batch_size}: must be divisible by the number of ranks times "
                f"accumulate, {ranks} x {config.accumulate}"
            )
        if config.data.half and not self.amp:
            raise UserError("data.half=true: needs precision=bfloat16 (float16 views, float32 networks)")

    def _build_method(self) -> Method:
        config = self.config
        setting = Setting(
            backbone=config.backbone,
            photos=self.loader.batch_size,
            views=tuple(config.data.single_views),
            accumulate=config.accumulate,
            classes=self.data["classes"],
            seed=config.seed,
            device=self.device.type,
        )
        torch.manual_seed(config.seed)
        method = config.method.build(setting).to(self.device, memory_format=torch.channels_last)
        if config.compile:
            for network in method.networks():
                network.compile()
        return method.train()

    def _distribute(self) -> nn.Module:
        if distributed.world_size() == 1:
            return self.method
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames broadcast_buffers
            # Batch-norm statistics stay each rank's own; queues are equal everywhere by construction.
            return DistributedDataParallel(
                self.method, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def epoch(self, batches: Iterator[Batch], before_step: Callable[[], None]) -> Iterator[Metrics]:
        """The optimizer steps of an epoch, or of the rest of it; yields what each `step` returns.

        batches: of the loader's epoch. before_step: called before each step.
        """
        for _ in range(self.steps_per_epoch - self.loader.batch // self.config.accumulate):
            before_step()
            yield self.step(batches)
        for _ in batches:  # passes too few for a step; the epoch ends
            pass

    def completes(self, epochs: int) -> bool:
        """Whether the last step was that of a multiple of so many epochs (0: of none)."""
        return epochs > 0 and self.steps_done % (epochs * self.steps_per_epoch) == 0

    def step(self, batches: Iterator[Batch]) -> Metrics:
        """One optimizer step; returns the loss and the metrics on the device, means over the passes."""
        config = self.config
        progress = Progress(self.steps_done, self.steps, self.loader.epoch)
        rate = config.optim.lr_at(self.steps_done, self.steps, self.steps_per_epoch, config.data.batch_size)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.method.begin_step(progress)
        self.optimizer.zero_grad(set_to_none=True)
        passes = [self._pass(next(batches), left == 0) for left in reversed(range(config.accumulate))]
        self.method.before_update(progress)
        if config.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.method.parameters(), config.optim.clip_norm)
        self.optimizer.step()
        self.method.after_update(progress)
        if self.steps_done == self.first_step:  # with torch.compile it takes its time
            distributed.limit_waiting(config.timeout_s)
        self.steps_done += 1
        values = {name: sum(one[name] for one in passes) / len(passes) for name in passes[0]}
        self._finite &= torch.isfinite(values["loss"])
        return values

    def _pass(self, batch: Batch, last: bool) -> Metrics:
        """Forward and backward pass; gradients of all ranks meet in the step's last one."""
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        alone = last or distributed.world_size() == 1
        with nullcontext() if alone else self.module.no_sync():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                loss, metrics = self.module(batch)
            (loss / self.config.accumulate).backward()
        return {"loss": loss.detach(), **metrics}

    def read(self, values: Metrics) -> tuple[dict[str, float], bool]:
        """Metrics of a step, means over ranks, and whether all losses so far were finite; a collective."""
        tensors = [value.float() for value in (*values.values(), self._finite)]
        *numbers, finite = distributed.all_reduce_mean(torch.stack(tensors)).tolist()
        return dict(zip(values, numbers)), finite == 1

    def weights_are_finite(self) -> bool:
        """Whether parameters and buffers are finite on every rank; every rank must call this.

        A loss can be finite and the update or the statistics it leads to not.
        """
        values = (*self.method.parameters(), *self.method.buffers())
        norms = torch.stack(torch._foreach_norm([value for value in values if value.is_floating_point()]))
        finite = torch.isfinite(norms).all().float()[None]  # statistics are each rank's own
        return distributed.all_reduce_mean(finite).item() == 1
