"""The training loop: epochs, steps, checkpoints. Knows nothing of what a method does inside."""

import json
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.shards import manifest_digest, read_manifest
from pipelines import build_loader
from pipelines.build import choose_device
from train import checkpoint, distributed
from train.config import RunConfig
from train.evaluate.features import same_classes, same_reading
from train.evaluate.neighbours import first_ranks_copy, knn
from train.export import export_backbone
from train.initial import load_initial
from train.method import Batch, Method, Metrics, Progress, Setting
from train.monitor import Clock, Monitor
from train.optim import build_optimiser
from train.resume import Resume, find_state
from train.signals import StopRequest


def choose_torch_device(wanted: str) -> torch.device:
    """The device of the networks is that of the data: `data.device`, "auto", "cpu" or "gpu"."""
    number = choose_device(wanted, None)
    if number is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "data.device: there is a GPU, but this torch cannot use it; install its CUDA build, "
            "or take data.device=cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # views have one size
    return device


def train(config: RunConfig, out: Path, resume: Resume = False) -> None:
    """Run a recipe from its first step, or from its last checkpoint, to its end.

    Writes `config.json`, `log.jsonl`, `checkpoints/` and, at the end, `backbone.pt` with its card under
    `out`. Call it in every process of a `torchrun`. On SIGTERM or SIGUSR1 it leaves a checkpoint and returns.

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
        Run(config, out, resume, device, stop) as run,
    ):
        run.all_epochs()


class Run:
    """One run's objects, and the steps of it."""

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        resume: Resume,
        device: torch.device,
        stop: StopRequest | None = None,
    ) -> None:
        self.config, self.out, self.device = config, out, device
        self.stop = stop or StopRequest()
        self.stop.connect()
        self.main = distributed.rank() == 0
        self.folder = out / "checkpoints"
        self.resumes = resume == "auto"
        state = find_state(config, out, resume)
        if state is not None:  # what it started from stays on record, whatever is given now
            init = json.loads(state["config"]).get("init")
            self.config = config = config.model_copy(update={"init": init and Path(init)})
        self.half = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
        self._check()
        self.loader = build_loader(config.pass_data, distributed.rank(), distributed.world_size())
        self.steps_per_epoch = len(self.loader) // config.accumulate
        self.steps = self.steps_per_epoch * config.epochs
        if self.steps_per_epoch == 0:
            raise UserError(
                f"accumulate={config.accumulate}: an epoch has {len(self.loader)} passes, too few for one "
                "step; take a smaller data.batch_size"
            )
        manifest = read_manifest(config.data.shards)
        self.data = {
            "photos": manifest.samples,
            "classes": len(manifest.classes),
            "class_names": manifest.classes,
            "manifest_sha256": manifest_digest(config.data.shards),
        }
        self.method = self._build_method()
        self.module = self._distribute()
        self.optimiser = build_optimiser(self.method, config.optim)
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        if state is not None:
            self._restore(state)
        elif config.init is not None:
            load_initial(self.method, config, self.data["class_names"])
        places = distributed.gather_objects((self.step, config.identity()))
        if len(set(places)) > 1:
            raise UserError(
                f"--out={out}: ranks are at steps {[step for step, _ in places]}, or have other "
                "configs; every machine must be given the same config and see the same folder"
            )
        self.first_step = self.step
        self.monitor = None
        if self.main:
            self.monitor = Monitor(out, self.step, self.steps, self.method.chance_loss)
            write_text(out / "config.json", config.model_dump_json(indent=1) + "\n")

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.close()
        if self.monitor:
            self.monitor.close()

    def _check(self) -> None:
        config, ranks = self.config, distributed.world_size()
        if config.data.batch_size % (ranks * config.accumulate):
            raise UserError(
                f"data.batch_size={config.data.batch_size}: must be divisible by the number of ranks times "
                f"accumulate, {ranks} x {config.accumulate}"
            )
        if config.data.half and not self.half:
            raise UserError("data.half=true: needs precision=bfloat16 (float16 views, float32 networks)")
        if config.knn.every_epochs:
            same_classes(self._knn_sets())

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

    # ------------------------------------------------------------ checkpoints

    def _restore(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        ranks = state["ranks"]  # the loader says whether another number of ranks can take over
        same = len(ranks) == distributed.world_size()
        own = ranks[distributed.rank() if same else 0]
        self.loader.load_state_dict(own["loader"])
        self.step = state["step"]
        self.metrics = state["metrics"]
        if same:
            torch.set_rng_state(own["rng"])
            if self.device.type == "cuda" and own["cuda_rng"] is not None:
                torch.cuda.set_rng_state(own["cuda_rng"])

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds; every rank must call this."""
        cuda_rng = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        own = {"loader": self.loader.state_dict(), "rng": torch.get_rng_state(), "cuda_rng": cuda_rng}
        [prefix] = [name for name, module in self.method.named_modules() if module is self.method.backbone]
        return {
            "step": self.step,
            "epochs": round(self.step / self.steps_per_epoch, 4),
            "identity": self.config.identity(),
            "config": self.config.model_dump_json(),
            "data": self.data,
            "metrics": self.metrics,
            "backbone": prefix,
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ranks": distributed.gather_objects(own),
        }

    def save(self) -> None:
        """Write a checkpoint; every rank must call this. After the last step, the backbone too."""
        state = self._state()
        if self.main:
            permanent = self.config.keep_every_epochs * self.steps_per_epoch
            checkpoint.save(self.folder, self.step, state, self.config.keep_checkpoints, permanent)
            if self.step == self.steps:
                export_backbone(state, self.out / "backbone.pt")

    # ------------------------------------------------------------ steps

    def all_epochs(self) -> None:
        """Train to the end, or until a signal asks to stop."""
        if not self.config.compile:
            distributed.limit_waiting(self.config.timeout_s)
        while self.loader.epoch < self.config.epochs and self._epoch():
            pass

    def _epoch(self) -> bool:
        """One epoch, or the rest of it; whether to go on."""
        config, clock = self.config, Clock(self.loader, distributed.world_size())
        batches = clock.batches()
        permanent, judged = (
            epochs * self.steps_per_epoch for epochs in (config.keep_every_epochs, config.knn.every_epochs)
        )
        for _ in range(self.steps_per_epoch - self.loader.batch // config.accumulate):
            self.stop.ask()
            values = self.train_step(batches)
            last, asked = self.step == self.steps, self.stop.answer()
            logging = last or self.step % config.log_every == 0
            saving = asked or last or self.step % config.checkpoint_every == 0
            judging = judged > 0 and self.step % judged == 0 and not asked
            saving = saving or judging or (permanent > 0 and self.step % permanent == 0)
            if logging or saving:
                numbers = self._read(values)
            if logging and self.monitor:
                self._report(numbers, clock)
            if self.monitor:
                self.monitor.advance()
            if saving:
                self._refuse_bad_weights()
                self.save()
                clock.restart()
            if judging:  # after saving: what is wrong with its photos must not cost the run its progress
                self._judge()
                clock.restart()
                if last:
                    self.save()  # so that the backbone's card has it
            if asked and not last:
                self._say_stopped()
                return False
        for _ in batches:  # passes too few for a step; the epoch ends
            pass
        return True

    def train_step(self, batches: Iterator[Batch]) -> Metrics:
        """One update of the weights; returns the loss and the metrics, means over the passes."""
        config = self.config
        progress = Progress(self.step, self.steps, self.loader.epoch)
        rate = config.optim.lr_at(self.step, self.steps, self.steps_per_epoch, config.data.batch_size)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.method.begin_step(progress)
        self.optimiser.zero_grad(set_to_none=True)
        passes = [
            self._pass(next(batches), number + 1 == config.accumulate) for number in range(config.accumulate)
        ]
        self.method.before_update(progress)
        if config.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.method.parameters(), config.optim.clip_norm)
        self.optimiser.step()
        self.method.after_update(progress)
        if self.step == self.first_step:  # with torch.compile it takes its time
            distributed.limit_waiting(config.timeout_s)
        self.step += 1
        values = {name: sum(one[name] for one in passes) / len(passes) for name in passes[0]}
        self.finite &= torch.isfinite(values["loss"])
        return values

    def _pass(self, batch: Batch, last: bool) -> Metrics:
        """Forward and backward; gradients of all ranks meet in the step's last one."""
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        alone = last or distributed.world_size() == 1
        with nullcontext() if alone else self.module.no_sync():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                loss, metrics = self.module(batch)
            (loss / self.config.accumulate).backward()
        return {"loss": loss.detach(), **metrics}

    def _read(self, values: Metrics) -> dict[str, float]:
        """Means over the ranks, as numbers.

        Raises:
            UserError: a loss since the last reading was not finite, on any rank.
        """
        tensors = [value.float() for value in (*values.values(), self.finite)]
        *numbers, finite = distributed.mean_over_ranks(torch.stack(tensors)).tolist()
        if finite < 1:
            self._give_up(f"the loss is {numbers[0]} at step {self.step}, or was not finite shortly before")
        return dict(zip(values, numbers))

    def _knn_sets(self) -> dict[str, Path]:
        options = self.config.knn
        return {"knn.bank": options.bank or self.config.data.shards, "knn.test": options.test}

    def _judge(self) -> None:
        """Log how good the features are by now; every rank must call this."""
        data, sets = self.config.data, self._knn_sets()
        # Ranks meet at the end only, and one may be done minutes before another.
        distributed.limit_waiting(distributed.START.total_seconds())
        network = first_ranks_copy(self.config.backbone, self.method.backbone)
        trained = data.model_dump(mode="json")
        found = knn(
            network, trained, *sets.values(), self.device, words=same_reading(data), options=tuple(sets)
        )
        distributed.limit_waiting(self.config.timeout_s)
        judged = {"knn_accuracy": found["top1"], "knn_epoch": round(self.step / self.steps_per_epoch)}
        self.metrics |= judged
        if self.monitor:
            self.monitor.note({"step": self.step, **judged})

    def _refuse_bad_weights(self) -> None:
        """A loss can be finite and the update or the statistics it leads to not: such weights are never
        saved."""
        values = (*self.method.parameters(), *self.method.buffers())
        lengths = torch.stack(torch._foreach_norm([value for value in values if value.is_floating_point()]))
        finite = torch.isfinite(lengths).all().float()[None]  # statistics are each rank's own
        if distributed.mean_over_ranks(finite) < 1:
            self._give_up(f"the weights are not finite after step {self.step}")

    def _give_up(self, why: str) -> None:
        found = checkpoint.list_checkpoints(self.folder)
        good = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
        raise UserError(
            f"{self.out}: {why}; {good}; start another run with a smaller optim.lr, a longer "
            "optim.warmup_epochs, or optim.clip_norm"
        )

    def _report(self, numbers: dict[str, float], clock: Clock) -> None:
        rate, waiting = clock.read()
        judged = {name: value for name, value in self.metrics.items() if name.startswith("knn_")}
        self.metrics = {**judged, "lr": self.optimiser.param_groups[0]["lr"], **numbers}
        place = {"step": self.step, "epoch": self.loader.epoch}
        speed = {"images_per_s": round(rate, 1), "data_wait": round(waiting, 4)}
        self.monitor.report({**place, "loss": numbers["loss"], "lr": self.metrics["lr"], **numbers, **speed})

    def _say_stopped(self) -> None:
        if self.monitor:
            how = "" if self.resumes else " with --resume"
            self.monitor.say(
                f"stopped by {self.stop.name or 'another rank'} after step {self.step} of {self.steps}; "
                f"the same command{how} goes on from here"
            )
