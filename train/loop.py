"""The training loop: epochs, steps, checkpoints, logging. Knows nothing of what a method does inside."""

import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.loader import Loader
from pipelines import build_loader
from pipelines.build import choose_device
from pipelines.config import FREE
from train import checkpoint, distributed
from train.config import RunConfig
from train.log import JsonLog
from train.methods.moco import Moco
from train.schedules import scaled_lr, warmup_cosine


def choose_torch_device(config: RunConfig) -> torch.device:
    """The device of the data is the device of the networks."""
    number = choose_device(config.data.device, None)
    if number is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "data.device: there is a GPU, but this torch cannot use it; install its CUDA build, "
            "or take data.device=cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def train(config: RunConfig, out: Path, resume: bool = False) -> None:
    """Run a recipe from its first step, or from its last checkpoint, to its end.

    Writes `config.json`, `log.jsonl` and `checkpoints/` under `out`. Call it in every process of a
    `torchrun`.

    Raises:
        UserError: `out` holds a run and `resume` is false, or it holds none and `resume` is true, or the run
            there was made with another config.
    """
    device = choose_torch_device(config)
    with distributed.process_group(device), _Run(config, out, resume, device) as run:
        run.all_epochs()


class _Run:
    """One run's objects, and the steps of it."""

    def __init__(self, config: RunConfig, out: Path, resume: bool, device: torch.device) -> None:
        self.config, self.out, self.device = config, out, device
        self.folder = out / "checkpoints"
        found = checkpoint.list_checkpoints(self.folder)
        if found and not resume:
            raise UserError(
                f"--out={out}: holds a run already; continue it with --resume, or choose another --out"
            )
        if resume and not found:
            raise UserError(f"--resume: {self.folder} has no checkpoint; start the run without --resume")
        state = self._load(found[-1]) if found else None
        self.loader = build_loader(config.data, distributed.rank(), distributed.world_size())
        self.steps = len(self.loader) * config.epochs
        self.half = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
        self._check()
        self.method = self._build_method()
        self.module: nn.Module = self.method
        if distributed.world_size() > 1:
            ids = [device.index] if device.type == "cuda" else None
            # Batch-norm statistics stay each rank's own; the queue is equal everywhere by construction.
            self.module = DistributedDataParallel(self.method, device_ids=ids, broadcast_buffers=False)
        options = config.optim
        trained = [parameter for parameter in self.method.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.SGD(
            trained, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
        self.step = 0
        if state is not None:
            self._restore(state)
        self.main = distributed.rank() == 0
        self.log = JsonLog(out / "log.jsonl", self.step) if self.main else None
        if self.main:
            write_text(out / "config.json", config.model_dump_json(indent=1) + "\n")

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.close()
        if self.log:
            self.log.close()

    def _check(self) -> None:
        count, group = self.loader.batch_size, self.config.method.bn_group
        if count > group and count % group:
            raise UserError(
                f"method.bn_group={group}: must divide a rank's batch, {count} "
                "(data.batch_size over the ranks)"
            )
        if self.config.data.half and not self.half:
            raise UserError("data.half=true: needs precision=bfloat16 (float16 views, float32 networks)")

    def _build_method(self) -> Moco:
        torch.manual_seed(self.config.seed)
        method = Moco(self.config.method, self.config.backbone, self.config.seed)
        return method.to(self.device, memory_format=torch.channels_last)

    def _load(self, path: Path) -> dict[str, Any]:
        state = checkpoint.load(path)
        if state["config"] != _identity(self.config):
            raise UserError(
                f"{path}: was made with another config than the one given now "
                f"(see {self.out / 'config.json'}); resume with the same, or choose another --out"
            )
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        ranks = state["ranks"]  # the loader says whether another number of ranks can take over
        same = len(ranks) == distributed.world_size()
        self.loader.load_state_dict(ranks[distributed.rank() if same else 0])
        self.step = state["step"]

    def save(self) -> None:
        """Write a checkpoint; every rank must call this."""
        ranks: list[Any] = [None] * distributed.world_size()
        if distributed.world_size() > 1:
            dist.all_gather_object(ranks, self.loader.state_dict())
        else:
            ranks = [self.loader.state_dict()]
        if self.main:
            state = {
                "config": _identity(self.config),
                "method": self.method.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "ranks": ranks,
            }
            checkpoint.save(self.folder, self.step, state, self.config.keep_checkpoints)

    def all_epochs(self) -> None:
        """Train to the end."""
        self.module.train()
        bar = tqdm(
            total=self.steps,
            initial=self.step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            disable=not self.main,
        )
        with bar:
            while self.loader.epoch < self.config.epochs:
                self._epoch(bar)

    def _epoch(self, bar: tqdm) -> None:
        """One epoch, or the rest of it."""
        clock = _Clock(self.loader, distributed.world_size())
        for batch in clock.batches():
            loss, metrics = self._train_step(batch)
            self.step += 1
            saving = self.step % self.config.checkpoint_every == 0 or self.step == self.steps
            if saving and not torch.isfinite(loss):
                raise UserError(
                    f"{self.out}: the loss is {loss.item()} at step {self.step}; the checkpoints in "
                    f"{self.folder} are from before; start another run with a smaller optim.lr"
                )
            if self.step % self.config.log_every == 0 or self.step == self.steps:
                self._report(bar, loss, metrics, clock)
            bar.update()
            if saving:
                self.save()
                clock.restart()

    def _train_step(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        config = self.config
        peak = scaled_lr(config.optim.lr, config.data.batch_size)
        warmup = round(config.optim.warmup_epochs * len(self.loader))
        for group in self.optimiser.param_groups:
            group["lr"] = warmup_cosine(self.step, self.steps, warmup, peak)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss, metrics = self.module(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach(), metrics

    def _report(
        self, bar: tqdm, loss: torch.Tensor, metrics: dict[str, torch.Tensor], clock: "_Clock"
    ) -> None:
        value = loss.clone()
        if distributed.world_size() > 1:
            dist.all_reduce(value)
        value = value.item() / distributed.world_size()
        if not self.main:
            return
        rate, waiting = clock.read()
        self.log.write(
            {
                "step": self.step,
                "epoch": self.loader.epoch,
                "loss": value,
                "lr": self.optimiser.param_groups[0]["lr"],
                **{name: round(metric.item(), 6) for name, metric in metrics.items()},
                "images_per_s": round(rate, 1),
                "data_wait": round(waiting, 4),
            }
        )
        bar.set_postfix_str(
            f"loss {value:.3f}, {rate:.0f} images/s, {waiting:.0%} waiting for data", refresh=False
        )


class _Clock:
    """Images per second of all ranks, and the share of time spent waiting, since the last reading."""

    def __init__(self, loader: Loader, world_size: int) -> None:
        self._loader, self._images = loader, loader.batch_size * world_size
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self._start, self._waited, self._count = time.perf_counter(), 0.0, 0

    def batches(self) -> Any:
        """The loader's batches, timing how long each is waited for."""
        iterator = iter(self._loader)
        while True:
            before = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            self._count += 1
            yield batch

    def read(self) -> tuple[float, float]:
        """(images per second, share of time waited) since the last reading."""
        seconds = time.perf_counter() - self._start
        result = self._count * self._images / seconds, self._waited / seconds
        self.restart()
        return result


def _identity(config: RunConfig) -> str:
    """What must be equal to resume: everything but where data lies and how often the run reports."""
    free = {"data": FREE, "log_every": True, "checkpoint_every": True}
    return config.model_dump_json(exclude={**free, "keep_checkpoints": True})
