"""DeepUSPS's two phases: networks that smooth each voter's maps, then one network of all of them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skimage.filters import threshold_otsu
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dali_bgaug.errors import UserError
from train import checkpoint, distributed
from train.monitor import Monitor
from train.records import SALIENCY_VERSION, LogLine, SaliencyRecord
from train.saliency.average import MovingAverage
from train.saliency.config import SaliencyConfig
from train.saliency.loss import f_loss, soft_threshold
from train.saliency.network import SaliencyNetwork
from train.saliency.photos import PhotoSet, save

LATER_THRESHOLD = 0.5
"""Foreground on maps that a network has averaged."""
POWER = 0.9
"""Of the learning rate's fall, by epoch."""
KEPT = 2
"""Newest checkpoints that are kept."""


class Trunk(NamedTuple):
    """What every stage starts from."""

    weights: dict[str, torch.Tensor] | None
    """None: random ones."""
    mean: list[float]
    """Of photos in [0, 1], by channel, that its input is normalised by."""
    std: list[float]
    sha256: str
    """Hash of the weights; "random" without."""


class Stage(NamedTuple):
    """A network from its first step to its last: a round of phase 1, or phase 2."""

    name: str
    labels: tuple[tuple[str, int], ...]
    """Maps it learns: a voter, and after how many rounds."""
    lr: float
    epochs: int
    beta2: float
    averages: tuple[str, int] | None
    """The voter whose next maps it averages, and their round; None in phase 2."""


def stages(config: SaliencyConfig) -> list[Stage]:
    """All stages of a training, in order."""
    refine, fuse = config.refine, config.fuse
    rounds = len(refine.lr)
    first = [
        Stage(
            f"{voter}, round {number + 1} of {rounds}",
            ((voter, number),),
            *(lr, refine.epochs, refine.beta2),
            averages=(voter, number + 1),
        )
        for voter in config.maps
        for number, lr in enumerate(refine.lr)
    ]
    labels = tuple((voter, rounds) for voter in config.maps)
    return [*first, Stage("all voters", labels, fuse.lr, fuse.epochs, fuse.beta2, averages=None)]


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
        self.network = SaliencyNetwork(config.trunk, config.head_std)
        self._identity = f"{config.identity()} {data.source} {trunk.sha256}"
        self._checkpoints = out / "checkpoints"
        self._resumed = self._load()
        self.monitor = Monitor(out, self.steps_done, self.steps, None) if self.rank == 0 else None

    def __exit__(self, *_: object) -> None:
        if self.monitor:
            self.monitor.close()

    def run(self) -> None:
        """All stages that are not done."""
        last, config = len(self.stages) - 1, self.config
        with MovingAverage(self.data.photos, self.data.folder, config.refine.decay, self._workers) as average:
            self._stage(average)
            while self.stage < last:
                self.stage, self.epoch, self._resumed = self.stage + 1, 0, None
                self._stage(average)
            if self.rank == 0:
                average.remove()

    def _stage(self, refined: MovingAverage) -> None:
        """The stage at hand, or the rest of it."""
        stage = self.stages[self.stage]
        average = refined if stage.averages else None
        if (
            self._resumed
            and average
            and self.epoch
            and average.checksum(self.epoch - 1) != self._resumed.average
        ):
            self._say(f"{stage.name}: its averaged maps are not those of the checkpoint; begun anew")
            self.steps_done -= self.epoch * self.steps_per_epoch
            self.epoch, self._resumed = 0, None
        self._begin(stage)
        if self.epoch < stage.epochs:
            self._say(f"stage {self.stage + 1} of {len(self.stages)}: {stage.name}, {stage.epochs} epochs")
        thresholds = self._thresholds(stage)
        labels = [np.load(self.data.maps(*label), mmap_mode="r") for label in stage.labels]
        while self.epoch < stage.epochs:
            self._epoch(stage, labels, thresholds, average)
        if average and stage.averages and self.rank == 0:
            save(self.data.maps(*stage.averages), average.mean(stage.epochs))
        distributed.all_gather_objects(None)  # nobody reads the maps before they are there

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
        self._module: nn.Module = self.network
        if self.ranks > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self._module = DistributedDataParallel(self.network, device_ids=ids)

    def _thresholds(self, stage: Stage) -> list[float]:
        """From which value on each of a stage's maps is foreground."""
        found = []
        for voter, round_ in stage.labels:
            if round_:
                found.append(LATER_THRESHOLD)
            elif voter in self.config.thresholds:
                found.append(self.config.thresholds[voter])
            else:
                maps = np.load(self.data.maps(voter, 0), mmap_mode="r")
                counts = sum(np.bincount(one.ravel(), minlength=256) for one in maps)
                found.append(float(threshold_otsu(hist=(counts, np.arange(256)))) / 255)
        return found

    def _epoch(
        self, stage: Stage, labels: list[np.ndarray], thresholds: list[float], average: MovingAverage | None
    ) -> None:
        self._module.train()
        lr = stage.lr * (1 - self.epoch / stage.epochs) ** POWER
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        if average:
            if self.rank == 0:
                average.create(self.epoch)
            distributed.all_gather_objects(None)
            average.begin(self.epoch)
        losses = []
        for rows, first in self._batches():
            losses.append(self._step(rows, labels, thresholds, stage.beta2, average, first))
            self.steps_done += 1
            if self.monitor:
                self.monitor.advance()
        if average:
            average.finish()
        loss = float(distributed.all_reduce_mean(torch.stack(losses).mean()))
        if not np.isfinite(loss):
            raise UserError(
                f"--out={self._out}: the loss is {loss} in stage '{stage.name}', epoch {self.epoch + 1}; a "
                "lower learning rate may help (refine.lr, fuse.lr)"
            )
        self.epoch += 1
        if self.monitor:
            epochs = self.steps_done // self.steps_per_epoch
            self.monitor.note(
                LogLine(step=self.steps_done, epoch=epochs, loss=loss, lr=lr, stage=self.stage + 1)
            )
            self._save(average)
        distributed.all_gather_objects(None)

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
        labels: list[np.ndarray],
        thresholds: list[float],
        beta2: float,
        average: MovingAverage | None,
        first: int,
    ) -> torch.Tensor:
        """An optimizer step; returns its loss, and hands predictions before it to the average."""
        self._optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        size, total = len(rows) // parts, torch.zeros((), device=self.device)
        for part in range(parts):
            chunk = rows[part * size : (part + 1) * size]
            last = part == parts - 1
            waiting = nullcontext() if last or self.ranks == 1 else self._module.no_sync()
            with waiting:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                    probability = self._module(self._pixels(chunk)).float()
                loss = torch.stack(
                    [
                        f_loss(*soft_threshold(probability, self._labels(maps, chunk), level), beta2).mean()
                        for maps, level in zip(labels, thresholds, strict=True)
                    ]
                ).mean()
                (loss / parts).backward()
            total += loss.detach() / parts
            if average and (new := max(0, min(size, first - part * size))):
                average.add(chunk[:new], probability.detach()[:new].cpu().numpy())
        self._optimizer.step()
        return total

    def _pixels(self, rows: list[int]) -> torch.Tensor:
        photos = torch.from_numpy(self._photos[rows]).to(self.device).permute(0, 3, 1, 2)
        return (photos.float() - self._mean) / self._std

    def _labels(self, maps: np.ndarray, rows: list[int]) -> torch.Tensor:
        return torch.from_numpy(maps[rows]).to(self.device).float() / 255

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
            average=average.checksum(self.epoch - 1) if average else 0,
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
                f"{self._checkpoints}: no checkpoint can be read; delete {self._out} to start anew"
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

    def _say(self, text: str) -> None:
        if self.monitor:
            self.monitor.say(text)
