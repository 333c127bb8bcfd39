"""The checkpointer: what a run goes on from, and what it leaves. One folder holds one run."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch

from dali_bgaug.errors import UserError
from train import checkpoint, distributed
from train.config import RunConfig
from train.export import export_backbone
from train.records import CHECKPOINT_VERSION, CheckpointRecord, LogLine
from train.trainer import Trainer
from train.writer import CheckpointWriter, host_copy

Resume = bool | Literal["auto"]
"""Whether to go on from a run's last checkpoint; "auto": if there is one, also past damaged ones."""


class Checkpointer:
    """The checkpoints of one run: found and loaded, restored into a trainer, saved, pruned."""

    def __init__(self, config: RunConfig, out: Path) -> None:
        """out: the run's folder."""
        self.config, self.out, self.folder = config, out, out / "checkpoints"
        self.writer = CheckpointWriter()
        """Of rank 0; the others have nothing to write."""

    def load(self, resume: Resume) -> CheckpointRecord | None:
        """The checkpoint that the run goes on from, or None where it begins; every rank must call this.

        Raises:
            UserError: there is a run and it is not to be resumed, or there is none and it is; it was made
                with another config; no checkpoint can be read.
        """
        main = distributed.rank() == 0
        # One rank looks for all: a network file system need not show every machine the same files yet.
        found = distributed.broadcast(checkpoint.list_checkpoints(self.folder)[-1:])
        if found and not resume:
            raise UserError(
                f"--out={self.out}: holds a run already; continue it with --resume, or choose another --out"
            )
        if resume is True and not found:
            raise UserError(f"--resume: {self.folder} has no checkpoint; start the run without --resume")
        if not found:
            if problem := distributed.broadcast(self._in_the_way() if main else ""):
                raise UserError(f"{problem}; choose another --out, or delete that folder")
            return None
        record, newest, problems = None, found[0], []
        if resume == "auto":  # nobody is there to delete a damaged one
            if main:
                record, problems = checkpoint.load_newest(self.folder)
                newest = record and checkpoint.path_of(self.folder, record.step)
            newest, problems = distributed.broadcast((newest, problems))
            if newest is None:
                raise UserError("\n  ".join(["--auto-resume: no checkpoint can be read:", *problems]))
            if main and problems:
                print("\n  ".join([f"going on from {newest}:", *problems]), file=sys.stderr)
        record = record or checkpoint.load(newest)
        if changed := _difference(record.identity, self.config.identity()):
            raise UserError(
                f"{newest}: was made with another config: {changed}; resume with "
                f"the same (it is in {self.out / 'config.json'}), or choose another --out"
            )
        return record

    def _in_the_way(self) -> str:
        """Why a run without checkpoints may not begin: the folder is another's, or that of one that ended."""
        before, weights = self.out / "config.json", self.out / "backbone.pt"
        if weights.exists():
            return f"{weights}: a run has ended here, and its checkpoints are gone"
        if not before.exists():
            return ""
        try:
            old = RunConfig.model_validate_json(before.read_bytes())
        except ValueError:
            return f"{before}: a run with another config began here: it cannot be read"
        changed = _difference(old.identity(), self.config.identity())
        if not changed and old.init != self.config.init:
            changed = f"init was {old.init}, now it is {self.config.init}"
        return changed and f"{before}: a run with another config began here: {changed}"

    def restore(self, trainer: Trainer, record: CheckpointRecord) -> None:
        """Have a trainer, newly built, go on from a checkpoint; every rank must call this.

        Raises:
            UserError: the number of ranks has changed in mid-epoch.
        """
        trainer.method.load_state_dict(record.method)
        trainer.optimizer.load_state_dict(record.optimiser)
        same = len(record.ranks) == distributed.world_size()
        own = record.ranks[distributed.rank() if same else 0]
        trainer.loader.load_state_dict(own["loader"])  # it says whether other ranks can take over
        trainer.steps_done = trainer.first_step = record.step
        trainer.metrics = dict(record.metrics)
        if same:
            torch.set_rng_state(own["rng"])
            if trainer.device.type == "cuda" and own["cuda_rng"] is not None:
                torch.cuda.set_rng_state(own["cuda_rng"])

    def record(self, trainer: Trainer) -> CheckpointRecord:
        """A trainer's state, which shares its memory; every rank must call this."""
        cuda_rng = torch.cuda.get_rng_state() if trainer.device.type == "cuda" else None
        own = {"loader": trainer.loader.state_dict(), "rng": torch.get_rng_state(), "cuda_rng": cuda_rng}
        method = trainer.method
        [prefix] = [name for name, module in method.named_modules() if module is method.backbone]
        return CheckpointRecord(
            version=CHECKPOINT_VERSION,
            step=trainer.steps_done,
            epochs=round(trainer.steps_done / trainer.steps_per_epoch, 4),
            identity=trainer.config.identity(),
            config=trainer.config.model_dump_json(),
            data=trainer.data,
            metrics=trainer.metrics,
            backbone=prefix,
            method=method.state_dict(),
            optimiser=trainer.optimizer.state_dict(),
            ranks=distributed.all_gather_objects(own),
        )

    def save(self, trainer: Trainer) -> None:
        """Take a checkpoint, which `writer` writes while training goes on; it waits for the one before.

        Then it prunes and, after the last step, exports the backbone. Every rank must call this.
        """
        start = time.perf_counter()
        waited = self.writer.wait()
        record = self.record(trainer)
        if distributed.rank() > 0:
            return
        record = record.model_copy(update=host_copy(dict(record)))
        if trainer.device.type == "cuda":
            torch.cuda.current_stream(trainer.device).synchronize()
        steps_per_epoch, last = trainer.steps_per_epoch, trainer.steps_done == trainer.steps

        def write() -> None:
            checkpoint.write(self.folder, record)
            self.prune(steps_per_epoch)
            if last:
                export_backbone(record, self.out / "backbone.pt")

        stall, wait = round(time.perf_counter() - start, 3), round(waited, 3) or None
        self.writer.start(write, LogLine(step=record.step, checkpoint_stall_s=stall, checkpoint_wait_s=wait))

    def prune(self, steps_per_epoch: int) -> None:
        """Delete all but the newest `keep_checkpoints` and those of every `keep_every_epochs`."""
        permanent = self.config.keep_every_epochs * steps_per_epoch
        for old in checkpoint.list_checkpoints(self.folder)[: -self.config.keep_checkpoints]:
            if not permanent or checkpoint.step_of(old) % permanent:
                old.unlink()


def _difference(before: str, now: str) -> str:
    """The differences of two configs, as JSON: `optim.lr was 0.1, now it is 0.2; …`."""
    old, new = (_flatten("", json.loads(text)) for text in (before, now))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {old.get(key)!r}, now it is {new.get(key)!r}" for key in changed)


def _flatten(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    parts = (_flatten(f"{name}.{key}" if name else key, item) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}
