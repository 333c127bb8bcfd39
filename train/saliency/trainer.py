"""DeepUSPS's two phases: networks that smooth each voter's maps, then one network of all of them."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dali_bgaug.errors import UserError
from train import checkpoint, distributed
from train.monitor import Monitor
from train.records import SALIENCY_VERSION, LogLine, SaliencyRecord
from train.saliency.average import MovingAverage, checksum
from train.saliency.config import SaliencyConfig
from train.saliency.loss import f_loss, soft_threshold
from train.saliency.network import SaliencyNetwork
from train.saliency.photos import PhotoSet
from train.saliency.stages import Labels, Stage, Trunk, read_labels, stages
from train.saliency.workers import worker_pool

POWER = 0.9
"""Of the learning rate's fall, by epoch."""
KEPT = 2
"""Newest checkpoints that are kept."""


class SaliencyTrainer(AbstractContextManager):
    """A training in its folder: what has been done, the network at work, its labels."""

    def __init__(
        self,
        config: SaliencyConfig,
        data: PhotoSet,
        trunk: Trunk,
        device: torch.device,
        out: Path,
        workers: int,
    ) -> None:
        """Build it, or restore it from `out`; every rank must call this.

        workers: processes of this rank that refine.

        Raises:
            UserError: the batch does not divide among ranks, or `out` holds another training.
        """
        self.config, self.data, self.device = config, data, device
        self._out, self._trunk, self._workers = out, trunk, workers
        self.rank, self.ranks = distributed.rank(), distributed.world_size()
        if config.batch_size % (self.ranks * config.accumulate) or config.batch_size > len(data.keys):
            raise UserError(
                f"batch_size={config.batch_size}: must be divisible by ranks times accumulate, {self.ranks} "
                f"x {config.accumulate}, and at most the {len(data.keys)} photos there are"
            )
        self.amp = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
        self._photos = np.load(data.photos, mmap_mode="r")
        self._mean, self._std = (
            255 * torch.tensor(values, device=device).view(3, 1, 1) for values in (trunk.mean, trunk.std)
        )
        self.stages = stages(config)
        self.steps_per_epoch = -(-len(data.keys) // config.batch_size)
        self.steps = self.steps_per_epoch * sum(stage.epochs for stage in self.stages)
        self.stage = self.epoch = self.steps_done = 0
        self._identity = f"{config.identity()} {data.source} {trunk.sha256}"
        self._checkpoints = out / "checkpoints"
        self._resumed = self._load()
        self._compare_averages()
        self.monitor = Monitor(out, self.steps_done, self.steps, None) if self.rank == 0 else None

    def __exit__(self, *_: object) -> None:
        if self.monitor:
            self.monitor.close()

    @property
    def turn(self) -> int:
        """Epochs of all stages that are done."""
        return self.steps_done // self.steps_per_epoch

    def run(self) -> SaliencyNetwork:
        """Do all stages that are not done; returns the last one's network."""
        # A batch and more may wait, so that the workers have something to do while the next is made.
        ahead = 2 * (self.config.batch_size // self.ranks + self._workers)
        with worker_pool(self._workers, "refines predictions") as pool:
            decay, data = self.config.refine.decay, self.data
            average = MovingAverage(data.photos, data.averages, decay, pool, ahead)
            network = self._stage(average)
            while self.stage < len(self.stages) - 1:
                self.stage, self.epoch = self.stage + 1, 0
                network = self._stage(average)
        if self.rank == 0:
            shutil.rmtree(data.averages, ignore_errors=True)
        return network

    def _stage(self, refined: MovingAverage) -> SaliencyNetwork:
        """The stage at hand, or the rest of it; returns its network."""
        stage = self.stages[self.stage]
        average = refined if stage.averages else None
        self._begin(stage)
        if self.epoch < stage.epochs:
            self._say(f"stage {self.stage + 1} of {len(self.stages)}: {stage.name}, {stage.epochs} epochs")
        labels = read_labels(self.config, self.data, stage)
        while self.epoch < stage.epochs:
            self._epoch(stage, labels, average)
        if stage.averages and self.rank == 0:
            refined.write_mean(self.turn - 1, stage.epochs, self.data.maps(*stage.averages))
        distributed.barrier()  # nobody reads the maps before they are there
        return self.network

    def _begin(self, stage: Stage) -> None:
        """A network with the trunk's weights and a new head, or the checkpoint's."""
        torch.manual_seed(self.config.seed + self.stage)
        network = SaliencyNetwork(self.config.trunk, self.config.head_std)
        if self._trunk.weights is not None:
            network.trunk.load_state_dict(self._trunk.weights)
        self.network = network.to(self.device)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=stage.lr)
        if self._resumed:
            self.network.load_state_dict(self._resumed.network)
            self._optimizer.load_state_dict(self._resumed.optimiser)
            self._resumed = None
        self._module: nn.Module = self.network
        if self.ranks > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self._module = DistributedDataParallel(self.network, device_ids=ids)

    def _epoch(self, stage: Stage, labels: list[Labels], average: MovingAverage | None) -> None:
        self._module.train()
        lr = stage.lr * (1 - self.epoch / stage.epochs) ** POWER
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        if average:
            if self.rank == 0:
                average.create(self.turn)
            distributed.barrier()
            average.begin(self.turn, first=self.epoch == 0)
        losses = []
        for rows, first in self._batches():
            losses.append(self._step(rows, first, labels, stage.beta2, average))
            self.steps_done += 1
            if self.monitor:
                self.monitor.advance()
        if average:
            average.finish()
        loss = float(distributed.all_reduce_mean(torch.stack(losses).mean()))
        finite = all(bool(values.isfinite().all()) for values in self.network.parameters())
        if not (np.isfinite(loss) and finite):
            raise UserError(
                f"--out={self._out}: the loss is {loss}, or weights are no numbers, in stage "
                f"'{stage.name}', epoch {self.epoch + 1}; a lower learning rate may help (refine.lr, fuse.lr)"
            )
        self.epoch += 1
        if self.monitor:
            line = LogLine(step=self.steps_done, epoch=self.turn, loss=loss, lr=lr, stage=self.stage + 1)
            self.monitor.note(line)
            self._save(average)
        distributed.barrier()

    def _batches(self) -> Iterator[tuple[list[int], int]]:
        """This rank's photos of each batch of an epoch, and how many of them come for the first time.

        The last batch is filled up with the epoch's first photos.
        """
        count, size = len(self.data.keys), self.config.batch_size
        order = np.random.default_rng((self.config.seed, self.stage, self.epoch)).permutation(count)
        own = size // self.ranks
        for start in range(0, count, size):
            begin = start + self.rank * own
            rows = order[np.arange(begin, begin + own) % count].tolist()
            yield rows, max(0, min(own, count - begin))

    def _step(
        self,
        rows: list[int],
        first: int,
        labels: list[Labels],
        beta2: float,
        average: MovingAverage | None,
    ) -> torch.Tensor:
        """An optimizer step; returns its loss, and hands predictions before it to the average.

        first: how many of the photos come for the first time in this epoch.
        """
        self._optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        size, total = len(rows) // parts, torch.zeros((), device=self.device)
        for part in range(parts):
            chunk = rows[part * size : (part + 1) * size]
            last = part == parts - 1
            waiting = nullcontext() if last or self.ranks == 1 else self._module.no_sync()
            with waiting:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                    probability = self._module(self._mirror(self._pixels(chunk), chunk)).float()
                sides = [soft_threshold(probability, *self._labels(one, chunk)) for one in labels]
                loss = torch.stack([f_loss(*side, beta2).mean() for side in sides]).mean()
                (loss / parts).backward()
            total += loss.detach() / parts
            if average and (new := max(0, min(size, first - part * size))):
                average.add(chunk[:new], probability.detach()[:new].cpu().numpy())
        self._optimizer.step()
        return total

    def _pixels(self, rows: list[int]) -> torch.Tensor:
        photos = torch.from_numpy(self._photos[rows]).to(self.device).permute(0, 3, 1, 2)
        return (photos.float() - self._mean) / self._std

    def _labels(self, labels: Labels, rows: list[int]) -> tuple[torch.Tensor, float]:
        maps = torch.from_numpy(labels.maps[rows]).to(self.device).float() / 255
        return self._mirror(maps, rows), labels.threshold

    def _mirror(self, images: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Images [n, …, H, W] of photos, those mirrored that are in this epoch."""
        if not self.stages[self.stage].flip:
            return images
        rng = np.random.default_rng((self.config.seed, self.stage, self.epoch, 1))
        mirrored = torch.from_numpy(rng.random(len(self.data.keys))[rows] < 0.5).to(self.device)
        return torch.where(mirrored.view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)

    def _save(self, average: MovingAverage | None) -> None:
        record = SaliencyRecord(
            version=SALIENCY_VERSION,
            step=self.steps_done,
            stage=self.stage,
            epoch=self.epoch,
            identity=self._identity,
            config=self.config.model_dump_json(),
            network=self.network.state_dict(),
            optimiser=self._optimizer.state_dict(),
            average=checksum(self.data.averages, self.turn - 1) if average else 0,
        )
        checkpoint.write(self._checkpoints, record)
        for path in checkpoint.list_checkpoints(self._checkpoints)[:-KEPT]:
            path.unlink()

    def _load(self) -> SaliencyRecord | None:
        """The newest checkpoint, if there is any."""
        record, problems = checkpoint.load_newest(self._checkpoints, SaliencyRecord)
        for problem in problems if self.rank == 0 else []:
            print(f"left out: {problem}")
        if record is None and problems:
            raise UserError(
                f"{self._checkpoints}: no checkpoint can be read; choose another --out, or delete that folder"
            )
        if record is None:
            return None
        if record.identity != self._identity:
            raise UserError(
                f"--out={self._out}: holds a training with another config, other photos or another trunk; "
                "choose another --out, or delete that folder"
            )
        self.stage, self.epoch, self.steps_done = record.stage, record.epoch, record.step
        return record

    def _compare_averages(self) -> None:
        """Begin a stage anew whose averaged maps are not its checkpoint's; every rank must call this."""
        if self._resumed is None or not self.stages[self.stage].averages:
            return
        same = checksum(self.data.averages, self.turn - 1) == self._resumed.average
        distributed.barrier()  # all have read what rank 0 deletes
        if same:
            return
        self.steps_done -= self.epoch * self.steps_per_epoch
        self.epoch, self._resumed = 0, None
        if self.rank == 0:
            print(
                f"stage {self.stage + 1}: its averaged maps are not those of the checkpoint; begun anew",
                file=sys.stderr,
            )
            for path in checkpoint.list_checkpoints(self._checkpoints):
                if checkpoint.step_of(path) > self.steps_done:
                    path.unlink()

    def _say(self, text: str) -> None:
        if self.monitor:
            self.monitor.say(text)
