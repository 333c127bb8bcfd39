"""Steps of a detection training, its checkpoints, and detections of a whole set."""

import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from dali_bgaug.errors import UserError
from train import checkpoint, distributed
from train.batch_norm import Grouping, group_batch_norm
from train.detect.coco import CocoDetections, compress_masks
from train.detect.config import DetectConfig
from train.detect.network import build_detector
from train.detect.objects import AnnotatedPhoto, DetectionSet
from train.detect.photos import Example, TrainingBatches, read_photo
from train.detect.statistics import measure_statistics
from train.detect.trunk import Trunk
from train.monitor import Clock, Monitor
from train.records import DETECT_VERSION, DetectRecord, LogLine
from train.schedules import warmup_multistep
from train.signals import StopRequest

KEPT = 2
"""Newest checkpoints that are kept."""


class DetectTrainer(AbstractContextManager):
    """A training in its folder."""

    def __init__(
        self,
        config: DetectConfig,
        data: DetectionSet,
        trunk: Trunk,
        device: torch.device,
        out: Path,
        stop: StopRequest,
    ) -> None:
        """Build it, or restore it from `out`; every rank must call this.

        data: to train on; its photos without objects are not used.

        Raises:
            UserError: the batch does not divide among ranks, no photo has objects, or `out` holds another
                training.
        """
        self.config, self.device, self._out, self._stop = config, device, out, stop
        self.rank, self.ranks = distributed.rank(), distributed.world_size()
        if config.batch_size % self.ranks:
            raise UserError(f"batch_size={config.batch_size}: must be divisible by the {self.ranks} ranks")
        photos = [photo for photo in data.photos if len(photo.objects.labels)]
        if not photos:
            raise UserError(f"data={config.data}: no photo of {', '.join(config.train)} has objects")
        self.photos = len(photos)
        self._batches = TrainingBatches(
            photos, config.seed, config.batch_size, self.rank, self.ranks, config.flip
        )
        torch.manual_seed(config.seed)
        detector = build_detector(
            *(trunk.network, config.backbone, len(data.classes)),
            masks=config.masks,
            short_sides=config.short_sides,
            longest=config.longest,
            mean=trunk.mean,
            std=trunk.std,
            anchors=config.anchors,
            samples=config.samples,
            proposals=config.proposals,
        ).to(device)
        self.network = group_batch_norm(detector, Grouping(ranks=self.ranks), device.type)
        self._optimizer = _build_optimizer(self.network, config)
        self._identity = f"{config.identity()} {', '.join(data.classes)} {self.photos} {trunk.sha256}"
        self._checkpoints = out / "checkpoints"
        self.steps_done = 0
        self._load()
        self._module: nn.Module = self.network
        if self.ranks > 1:
            ids = [device.index] if device.type == "cuda" else None
            # Buffers are batch norm's, which shares its statistics itself.
            self._module = DistributedDataParallel(self.network, ids, broadcast_buffers=False)
        self.monitor = Monitor(out, self.steps_done, config.steps, None) if self.rank == 0 else None

    def __exit__(self, *_: object) -> None:
        if self.monitor:
            self.monitor.close()

    def run(self) -> bool:
        """Train to the last step, or until a signal asks to stop; whether it is the last."""
        config = self.config
        self._module.train()
        clock = Clock(_Rest(self._batches, self.steps_done, config), self.ranks)
        for batch in clock.batches():
            self._stop.ask()
            losses = self._step(batch)
            self.steps_done += 1
            asked, last = self._stop.answer(), self.steps_done == config.steps
            saving = asked or last or self.steps_done % config.checkpoint_every == 0
            if saving or self.steps_done % config.log_every == 0:
                self._log(losses, clock)
            if self.monitor:
                self.monitor.advance()
            if saving:
                self._save()
            if asked and not last:
                self.say(
                    f"stopped by {self._stop.name or 'another rank'} after step {self.steps_done} of "
                    f"{config.steps}; the same command goes on from here"
                )
                return False
        return True

    def _step(self, batch: list[Example]) -> dict[str, torch.Tensor]:
        lr = self.config.lr
        rate = warmup_multistep(
            *(self.steps_done, self.config.warmup_steps, lr, self.config.milestones),
            start=lr * self.config.warmup_start,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._losses(self.steps_done, batch)
        sum(losses.values()).backward()
        self._optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def _losses(self, step: int, batch: list[Example]) -> dict[str, torch.Tensor]:
        """Losses of a step's batch, whose draws (sizes of photos, boxes that are learnt from) depend on the
        step alone: a checkpoint need not hold generators."""
        seed = np.random.SeedSequence((self.config.seed, 2, step, self.rank)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        photos = [photo.to(self.device, non_blocking=True) for photo, _ in batch]
        targets = [{name: value.to(self.device) for name, value in target.items()} for _, target in batch]
        return self._module(photos, targets)

    def _log(self, losses: dict[str, torch.Tensor], clock: Clock) -> None:
        """Log a step; every rank must call this."""
        means = distributed.all_reduce_mean(torch.stack(list(losses.values()))).tolist()
        loss = sum(means)
        if not math.isfinite(loss):
            raise UserError(
                f"--out={self._out}: the loss is {loss} at step {self.steps_done}, or was not finite shortly "
                "before; start another training with a smaller lr, or a longer warmup_steps"
            )
        if self.monitor:
            reading = clock.read()
            speed = {
                "images_per_s": round(reading.images_per_s, 2),
                "data_wait": round(reading.data_wait, 4),
            }
            parts = dict(zip(losses, means, strict=True))
            lr = self._optimizer.param_groups[0]["lr"]
            self.monitor.report(LogLine(step=self.steps_done, loss=loss, lr=lr, **speed, **parts))

    def measure_statistics(self) -> None:
        """Measure batch norm's statistics anew for the weights as they are; every rank must call this."""
        count = self.config.statistics
        if not count:
            return
        self.say(f"batch norm's statistics of {count} batches")
        steps = range(self.config.steps, self.config.steps + count)
        batches = self._batches.read(steps.start, count, self.config.threads)
        numbered = zip(steps, batches, strict=True)
        measure_statistics(self.network, numbered, lambda one: self._losses(*one))

    @torch.no_grad()
    def detect(self, photos: Sequence[AnnotatedPhoto]) -> dict[str, CocoDetections]:
        """Detections of all photos, on every rank; every rank must call this."""
        self.network.eval()
        found = {}
        for photo, pixels in self._read(photos[self.rank :: self.ranks]):
            [one] = self.network([pixels.to(self.device).float() / 255])
            one = {name: value.cpu().numpy() for name, value in one.items()}
            masks = compress_masks(one["masks"]) if "masks" in one else None
            size = photo.height, photo.width
            found[photo.key] = CocoDetections(one["boxes"], one["labels"] - 1, one["scores"], masks, size)
        return {key: one for part in distributed.all_gather_objects(found) for key, one in part.items()}

    def _read(self, photos: Sequence[AnnotatedPhoto]) -> Iterator[tuple[AnnotatedPhoto, torch.Tensor]]:
        with ThreadPoolExecutor(self.config.threads) as pool:
            waiting = ((photo, pool.submit(read_photo, photo)) for photo in photos)
            ready = list(islice(waiting, 2 * self.config.threads))
            while ready:
                photo, pixels = ready.pop(0)
                yield photo, pixels.result()
                ready += islice(waiting, 1)

    def _save(self) -> None:
        """Write a checkpoint of weights that are numbers; every rank must call this."""
        if not all(bool(value.isfinite().all()) for value in self.network.parameters()):
            raise UserError(
                f"--out={self._out}: weights are no numbers after step {self.steps_done}; start another "
                "training with a smaller lr"
            )
        if self.rank == 0:
            record = DetectRecord(
                version=DETECT_VERSION,
                step=self.steps_done,
                identity=self._identity,
                config=self.config.model_dump_json(),
                network=self.network.state_dict(),
                optimiser=self._optimizer.state_dict(),
            )
            checkpoint.write(self._checkpoints, record)
            for path in checkpoint.list_checkpoints(self._checkpoints)[:-KEPT]:
                path.unlink()
        distributed.barrier()

    def _load(self) -> None:
        """Go on from the newest checkpoint, if there is any."""
        record, problems = checkpoint.load_newest(self._checkpoints, DetectRecord)
        for problem in problems if self.rank == 0 else []:
            print(f"left out: {problem}", file=sys.stderr)
        if record is None:
            if problems:
                raise UserError(
                    f"{self._checkpoints}: no checkpoint can be read; choose another --out, or delete it"
                )
            return
        if record.identity != self._identity:
            raise UserError(
                f"--out={self._out}: holds a training with another config, other photos or another trunk; "
                "choose another --out, or delete that folder"
            )
        self.network.load_state_dict(record.network)
        self._optimizer.load_state_dict(record.optimiser)
        self.steps_done = record.step

    def say(self, text: str) -> None:
        """A line on one rank."""
        if self.monitor:
            self.monitor.say(text)


class _Rest:
    """The batches of the steps that are left, as `Clock` takes them."""

    def __init__(self, batches: TrainingBatches, step: int, config: DetectConfig) -> None:
        self.batch_size, self._batches, self._step, self._config = batches.batch_size, batches, step, config

    def __iter__(self) -> Iterator[list[Example]]:
        return self._batches.read(self._step, self._config.steps - self._step, self._config.threads)


def _build_optimizer(network: nn.Module, config: DetectConfig) -> torch.optim.Optimizer:
    """SGD of everything, without weight decay for batch norm."""
    norms = {
        id(value)
        for module in network.modules()
        if isinstance(module, _BatchNorm)
        for value in module.parameters()
    }
    decayed = [value for value in network.parameters() if id(value) not in norms]
    other = [value for value in network.parameters() if id(value) in norms]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": other, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, config.lr, config.momentum)
