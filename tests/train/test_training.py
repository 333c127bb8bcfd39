"""Whole runs in real processes: the same losses after kill -9, a signal, with two ranks; a rank that dies or
hangs."""

import json
import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_bgaug import files
from dali_bgaug.files import read_log
from tests.helpers import programs
from tests.helpers.processes import SECONDS, finish, launch
from tests.helpers.runs import read_losses, train_rank, write_recipe
from train import checkpoint


def _wait(process: BaseProcess, out: Path, steps: int) -> None:
    """Until a run has logged so many steps."""
    deadline = time.monotonic() + SECONDS
    while len(read_losses(out)) < steps:
        assert time.monotonic() < deadline, "the run makes no progress"
        assert process.is_alive(), "the run ended early"
        time.sleep(0.01)


def _train(recipe: Path, out: Path, *words: str, resume: bool = False, ranks: int = 1) -> list[float]:
    assert finish(launch(train_rank, recipe, out, words, resume, ranks=ranks)) == [0] * ranks
    return read_losses(out)


def _checkpoints(out: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.list_checkpoints(out / "checkpoints")]


def _train_on_a_slow_disk(recipe: Path, out: Path) -> None:
    """Checkpoint 12 waits for step 17 before it is serialised; 24 is never on the disk."""
    save, sync = checkpoint.save, files._sync

    def late(path: Path, values: dict[str, Any]) -> None:
        while path.name == "step-00000012.pt" and len(read_losses(out)) < 17:
            time.sleep(0.01)
        save(path, values)

    def stuck(path: Path) -> None:
        if path.name.startswith("step-00000024.pt"):
            time.sleep(SECONDS)
        sync(path)

    checkpoint.save, files._sync = late, stuck
    train_rank(recipe, out)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["moco_v2", "byol", "swav"])
def test_kill_9_loses_nothing(method: str, textured: Path, tmp_path: Path) -> None:
    """Killed while it writes a checkpoint, at a random step after it, and resumed from the one before, which
    was written late, each method with a state of its own (queue, moving average, frozen prototypes) has the
    losses it would have had, to the bit."""
    recipe = write_recipe(tmp_path, textured, method, epochs=6, checkpoint_every=12)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = launch(train_rank, recipe, whole)
    step = random.randint(25, 33)
    [process] = launch(_train_on_a_slow_disk, recipe, killed)
    _wait(process, killed, step)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert finish(undisturbed) == [0]
    losses = read_losses(whole)
    assert len(losses) == 36
    assert len(set(losses)) > 18
    assert _checkpoints(whole) == [24, 36]
    before = read_losses(killed)
    assert step <= len(before) <= 36
    assert _checkpoints(killed) == [12]
    assert before == losses[: len(before)], f"killed after step {step}"
    assert _train(recipe, killed, resume=True) == losses, f"killed after step {step}"
    ends = [torch.load(out / "checkpoints" / "latest.pt") for out in (whole, killed)]
    for one, other in zip(*(end["method"].items() for end in ends)):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1]) if isinstance(one[1], torch.Tensor) else True, one[0]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks_between_epochs(
    before: int, after: int, textured: Path, tmp_path: Path
) -> None:
    """Steps and their batches' size stay, the losses so far too; those to come are the same each time."""
    recipe = write_recipe(tmp_path, textured, epochs=2, checkpoint_every=6)
    losses = _train(recipe, tmp_path / "whole", ranks=before)
    assert len(losses) == 12 and _checkpoints(tmp_path / "whole") == [6, 12]
    found = []
    for name in ("one", "two"):
        out = shutil.copytree(tmp_path / "whole", tmp_path / name, symlinks=True)
        (out / "checkpoints" / "step-00000012.pt").unlink()
        files.write_pointer(out / "checkpoints" / "latest.pt", "step-00000006.pt")
        found.append(_train(recipe, out, resume=True, ranks=after))
        assert _checkpoints(out) == [6, 12]
    assert found[0] == found[1]
    assert found[0][:6] == losses[:6] and found[0][6:] != losses[6:]


@pytest.mark.slow
def test_two_ranks_stop_at_the_same_step_when_one_is_asked_to(textured: Path, tmp_path: Path) -> None:
    """SIGUSR1 to one of two: both save and end well; resumed, the same losses as without a stop."""
    recipe = write_recipe(tmp_path, textured)
    losses = _train(recipe, tmp_path / "whole", ranks=2)
    assert len(losses) == 48
    lines = [line for line in read_log(tmp_path / "whole" / "log.jsonl")[0] if "loss" in line]
    assert len(lines) == 48
    for line in lines:
        assert {name: len(values) for name, values in line["ranks"].items()} == dict.fromkeys(
            ("data_wait", "step_s", "probe_ms"), 2
        )

    out = tmp_path / "stopped"
    processes = launch(train_rank, recipe, out, ranks=2)
    _wait(processes[0], out, 3)
    os.kill(processes[1].pid, signal.SIGUSR1)
    assert finish(processes) == [0, 0]
    [*_, last] = _checkpoints(out)
    assert 3 <= last < 48
    assert read_losses(out) == losses[:last]
    assert _train(recipe, out, resume=True, ranks=2) == losses
    states = [torch.load(run / "checkpoints" / "latest.pt")["method"] for run in (tmp_path / "whole", out)]
    for name in ("queue", "queue_ptr", "query_encoder.backbone.features.0.weight", "key_encoder.head.2.bias"):
        assert torch.equal(states[0][name], states[1][name]), name
    assert states[0]["queue_ptr"].tolist() == [48 * 8 % 32]


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)])
def test_a_signal_saves(numbers: tuple[signal.Signals, ...], textured: Path, tmp_path: Path) -> None:
    """Of a launcher and a scheduler, which both send one, or of Ctrl-C."""
    recipe, out, errors = write_recipe(tmp_path, textured), tmp_path / "out", tmp_path / "errors"
    [process] = launch(train_rank, recipe, out, ("epochs=400", "checkpoint_every=100000"), errors=errors)
    _wait(process, out, 2)
    for number in numbers:
        os.kill(process.pid, number)
    assert finish([process]) == [0]
    [step] = _checkpoints(out)
    assert step == len(read_losses(out))
    assert not (out / "backbone.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, ()), (signal.SIGSTOP, ("timeout_s=4",))])
def test_a_rank_that_is_gone_brings_the_others_down(
    number: signal.Signals, words: tuple[str, ...], textured: Path, tmp_path: Path
) -> None:
    """Dead: at once. Silent, as on a machine without power: after `timeout_s`."""
    recipe, out = write_recipe(tmp_path, textured), tmp_path / "out"
    processes = launch(train_rank, recipe, out, ("epochs=400", *words), ranks=2)
    _wait(processes[0], out, 3)
    os.kill(processes[1].pid, number)
    [code] = finish(processes[:1], seconds=60)
    finish(processes[1:], seconds=0)
    assert code not in (0, None)


def test_a_rank_that_dies_before_it_joins_does_not_hold_the_others(textured: Path, tmp_path: Path) -> None:
    """torch alone would try for up to three times `timeout_s`, then for ten minutes."""
    recipe, errors = write_recipe(tmp_path, textured), tmp_path / "errors"
    processes = launch(train_rank, recipe, tmp_path / "out", ("timeout_s=2",), ranks=2, errors=errors)
    processes[0].kill()
    start = time.monotonic()
    [code] = finish(processes[1:], seconds=30)
    assert (code, time.monotonic() - start < 10) == (1, True)  # what it takes to import and start included
    assert "error: after 2 s the other ranks did not join" in errors.read_text()


@pytest.mark.slow
def test_torchrun_ends_when_a_rank_dies(textured: Path, tmp_path: Path) -> None:
    """Ranks that it starts itself, as interpreters."""
    recipe, out = write_recipe(tmp_path, textured), tmp_path / "out"
    words = ["--standalone", "--nproc-per-node=2", "-m", "train", "--config", str(recipe), "--out", str(out)]
    process = programs.launch("torch.distributed.run", *words, "epochs=400")
    try:
        _wait(process, out, 3)
        children = Path("/proc") / str(process.pid) / "task" / str(process.pid) / "children"
        workers = children.read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        process.join(60)
        assert process.exitcode not in (0, None)
    finally:
        process.kill()
    assert not any((Path("/proc") / worker).exists() for worker in workers)


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_between_epochs(textured: Path, tmp_path: Path) -> None:
    """Two ranks stop in mid-epoch: one cannot take over. They stop at its end: one goes on with the next."""
    recipe = write_recipe(tmp_path, textured, epochs=2, checkpoint_every=5, keep_every_epochs=1)
    out, errors = tmp_path / "out", tmp_path / "errors"
    assert len(_train(recipe, out, ranks=2)) == 12
    assert _checkpoints(out) == [6, 10, 12]
    (out / "checkpoints" / "step-00000012.pt").unlink()
    assert finish(launch(train_rank, recipe, out, (), True, errors=errors)) == [2]
    assert "(batch 4 of 6), this is rank 0 of 1; the number of ranks can change between" in errors.read_text()
    (out / "checkpoints" / "step-00000010.pt").unlink()
    assert len(_train(recipe, out, resume=True)) == 12


def test_a_loss_that_is_no_number_ends_the_run(textured: Path, tmp_path: Path) -> None:
    """Nothing bad is saved: the named checkpoint, of the step with a rate of 0, is good."""
    words = ("optim.lr=1e12", "optim.warmup_epochs=1", "checkpoint_every=1")
    recipe, out, errors = write_recipe(tmp_path, textured), tmp_path / "out", tmp_path / "errors"
    assert finish(launch(train_rank, recipe, out, words, errors=errors)) == [2]
    steps = _checkpoints(out)
    assert steps
    good = out / "checkpoints" / f"step-{steps[-1]:08d}.pt"
    message = errors.read_text()
    assert "not finite" in message
    assert f"the last good checkpoint is {good}; start another run with a smaller optim.lr" in message
    for name, value in torch.load(good)["method"].items():
        assert not isinstance(value, torch.Tensor) or torch.isfinite(value).all(), name


def test_a_run_leaves_what_it_promises(textured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _train(write_recipe(tmp_path, textured, epochs=2, keep_checkpoints=1, keep_every_epochs=1), out)
    assert _checkpoints(out) == [6, 12]
    latest = out / "checkpoints" / "latest.pt"
    assert latest.is_symlink()
    assert latest.resolve().name == "step-00000012.pt"
    lines = read_log(out / "log.jsonl")[0]
    assert set(lines[0]) == {
        *("step", "epoch", "loss", "lr", "accuracy", "feature_std", "images_per_s", "data_wait", "ranks")
    }
    assert [line["step"] for line in lines if "checkpoint_write_s" in line] == [6, 12]
    steps = [line for line in lines if "lr" in line]
    assert [line["ranks"]["data_wait"] for line in steps] == [[line["data_wait"]] for line in steps]
    assert [line["lr"] for line in steps][:2] == pytest.approx([0.05, 0.0491], abs=1e-4)
    assert json.loads((out / "config.json").read_text())["method"]["queue"] == 32
    assert (out / "backbone.pt").is_file()
    assert (out / "backbone.json").is_file()
