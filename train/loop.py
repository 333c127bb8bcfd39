"""The training loop: epochs of the trainer, and what happens between its steps."""

import json
import shlex
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from train import checkpoint, distributed
from train.checkpointer import Checkpointer, Resume
from train.config import RunConfig
from train.device import choose_torch_device
from train.features import Runtime, evaluation_config, same_classes
from train.initial import load_initial
from train.monitor import Clock, Monitor, Reading
from train.neighbours import first_ranks_copy, knn
from train.ranks import measure_ranks
from train.records import LogLine
from train.signals import StopRequest
from train.trainer import Trainer

LONG_WAIT_S = 1.0
"""Seconds of waiting for a checkpoint to be written of which a run speaks."""


def train(config: RunConfig, out: Path, resume: Resume = False) -> None:
    """Run a recipe from its first step, or from its last checkpoint, to its end.

    Writes `config.json`, `log.jsonl`, `checkpoints/` and, at the end, `backbone.pt` with its card under
    `out`. Call it in every process of a `torchrun`. On SIGINT, SIGTERM or SIGUSR1 it leaves a checkpoint and
    returns.

    Args:
        config: what to train, and with what.
        out: the run's folder.
        resume: whether to go on from its last checkpoint; "auto" if there is one.

    Raises:
        UserError: another process trains in `out`; it holds a run and `resume` is false, or it holds none and
            `resume` is true, or the run there was made with another config; the weights of `config.init` do
            not fit; the loss is no longer a number.
    """
    device = choose_torch_device(config.data.device)
    stop = StopRequest()
    with (
        stop.listening(),
        distributed.process_group(device, config.timeout_s),
        distributed.hold(out / "lock", f"--out={out}"),
        Loop(config, out, resume, device, stop) as loop,
    ):
        if loop.run():
            loop.say_finished()


class Loop(AbstractContextManager):
    """A run in its folder: after which steps it logs, saves, is evaluated by k-NN, and stops."""

    def __init__(
        self, config: RunConfig, out: Path, resume: Resume, device: torch.device, stop: StopRequest
    ) -> None:
        """Build the trainer or restore it; every rank must call this. Arguments and errors: as `train`."""
        self.out, self._resumes = out, resume == "auto"
        self._stop = stop
        stop.connect()
        self.checkpointer = Checkpointer(config, out)
        record = self.checkpointer.load(resume)
        if record is not None:  # what it started from stays on record, whatever is given now
            init = json.loads(record.config).get("init")
            config = config.replaced(init=init and Path(init))
        self.config = config
        if config.knn.every_epochs:
            same_classes(self._knn_sets())
        self.trainer = trainer = Trainer(config, device)
        if record is not None:
            self.checkpointer.restore(trainer, record)
        elif config.init is not None:
            load_initial(trainer.method, config, trainer.data["class_names"])
        places = distributed.all_gather_objects((trainer.steps_done, config.identity()))
        if len(set(places)) > 1:
            raise UserError(
                f"--out={out}: ranks are at steps {[step for step, _ in places]}, or have other "
                "configs; every machine must be given the same config and see the same folder"
            )
        self.monitor = None
        if distributed.rank() == 0:
            self.monitor = Monitor(out, trainer.steps_done, trainer.steps, trainer.method.chance_loss)
            write_text(out / "config.json", config.model_dump_json(indent=1) + "\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._log_checkpoints(wait=True)
        except Exception as problem:
            if kind is None:
                raise
            self.monitor.say(f"warning: {problem}")  # what ends the run is another error
        finally:
            self.trainer.loader.close()
            if self.monitor:
                self.monitor.close()

    def run(self) -> bool:
        """Train to the end, or until a signal asks to stop; whether it is the end."""
        if not self.config.compile:
            distributed.limit_waiting(self.config.timeout_s)
        while self.trainer.loader.epoch < self.config.epochs and self._epoch():
            pass
        self._log_checkpoints(wait=True)
        finished = self.trainer.steps_done == self.trainer.steps
        if not finished:
            self._say_stopped()
        return finished

    def _epoch(self) -> bool:
        """One epoch, or the rest of it; whether to go on."""
        config, trainer = self.config, self.trainer
        clock = Clock(trainer.loader, distributed.world_size())
        for values in trainer.epoch(clock.batches(), self._stop.ask):
            step, asked = trainer.steps_done, self._stop.answer()
            last = step == trainer.steps
            logging = last or step % config.log_every == 0
            evaluating = trainer.completes(config.knn.every_epochs) and not asked
            permanent = trainer.completes(config.keep_every_epochs)
            saving = asked or last or evaluating or permanent or step % config.checkpoint_every == 0
            self._log_checkpoints()
            if logging or saving:
                numbers, finite = trainer.read(values)
                if not finite:
                    loss = numbers["loss"]
                    self._give_up(f"the loss is {loss} at step {step}, or was not finite shortly before")
            if logging:
                self._log(numbers, clock.read())
                clock.restart()
            if self.monitor:
                self.monitor.advance()
            if saving:
                if not trainer.weights_are_finite():  # such weights are never saved
                    self._give_up(f"the weights are not finite after step {step}")
                self.checkpointer.save(trainer)
                clock.restart()
            if evaluating:  # after saving: what is wrong with its photos must not cost the run its progress
                self._evaluate()
                clock.restart()
                if last:
                    self.checkpointer.save(trainer)  # so that the backbone's card has it
            if asked and not last:
                return False
        return True

    def _knn_sets(self) -> dict[str, Path]:
        options = self.config.knn
        return {"knn.bank": options.bank or self.config.data.shards, "knn.test": options.test}

    def _evaluate(self) -> None:
        """Log the k-NN accuracy of the features by now; every rank must call this."""
        config, trainer, sets = self.config, self.trainer, self._knn_sets()
        # Ranks meet at the end only, and one may be done minutes before another.
        distributed.limit_waiting(distributed.START.total_seconds())
        network = first_ranks_copy(config.backbone, trainer.method.backbone)
        runtime = Runtime.of(config.data)
        bank, test = (evaluation_config(config.data, path, runtime=runtime) for path in sets.values())
        found = knn(network, bank, test, trainer.device, options=tuple(sets))
        distributed.limit_waiting(config.timeout_s)
        epoch = round(trainer.steps_done / trainer.steps_per_epoch)
        accuracy = {"knn_accuracy": found["top1"], "knn_epoch": epoch}
        trainer.metrics |= accuracy
        if self.monitor:
            self.monitor.note(LogLine(step=trainer.steps_done, **accuracy))

    def _log(self, numbers: dict[str, float], reading: Reading) -> None:
        """Log a step; every rank must call this."""
        trainer, config = self.trainer, self.config
        ranks = measure_ranks(reading, config.accumulate, trainer.device)
        if not self.monitor:
            return
        accuracy = {name: value for name, value in trainer.metrics.items() if name.startswith("knn_")}
        trainer.metrics = {**accuracy, "lr": trainer.optimizer.param_groups[0]["lr"], **numbers}
        place = {"step": trainer.steps_done, "epoch": trainer.loader.epoch, "lr": trainer.metrics["lr"]}
        speed = {"images_per_s": round(reading.images_per_s, 1), "data_wait": max(ranks.data_wait)}
        self.monitor.report(LogLine(**place, **speed, ranks=ranks, **numbers))

    def _log_checkpoints(self, wait: bool = False) -> None:
        """Log the checkpoints that are written by now, or, waiting, all; raises what could not be written."""
        writer = self.checkpointer.writer
        if wait:
            writer.wait()
        for line in writer.lines():
            self.monitor.note(line)
            if (line.checkpoint_wait_s or 0) > LONG_WAIT_S:
                self.monitor.say(
                    f"step {line.step}: training waited {line.checkpoint_wait_s:.1f} s until the checkpoint "
                    "before was written; raise checkpoint_every, or take a faster disk"
                )

    def _give_up(self, why: str) -> None:
        self._log_checkpoints(wait=True)
        distributed.barrier()  # so that every rank sees it
        found = checkpoint.list_checkpoints(self.checkpointer.folder)
        good = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
        raise UserError(
            f"{self.out}: {why}; {good}; start another run with a smaller optim.lr, a longer "
            "optim.warmup_epochs, or optim.clip_norm"
        )

    def say_finished(self) -> None:
        """Say, on one rank, what the run leaves and how to judge it."""
        if self.monitor:
            data, loss = self.config.data.shards, self.trainer.metrics["loss"]
            words = [f"--checkpoint={self.out}", f"--data={data}", "--test=VALIDATION"]
            self.monitor.say(
                f"{self.out}: {self.trainer.steps} steps, last loss {loss:.3f}, weights in backbone.pt; "
                f"next: {shlex.join(['python', '-m', 'train.evaluate', 'knn', *words])}"
            )

    def _say_stopped(self) -> None:
        if self.monitor:
            how = "" if self._resumes else " with --resume"
            self.monitor.say(
                f"stopped by {self._stop.name or 'another rank'} after step {self.trainer.steps_done} of "
                f"{self.trainer.steps}; the same command{how} goes on from here"
            )
