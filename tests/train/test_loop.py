"""Steps of the loop by themselves: accumulation, clipping, precision, compilation; what a run refuses."""

import errno
import os
import pickle
import threading
from functools import partialmethod
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_log
from tests.helpers.runs import METHODS, TinyNet, read_recipe, write_recipe
from train import checkpoint
from train.checkpointer import Checkpointer
from train.loop import train
from train.networks import FEATURES
from train.records import CheckpointRecord
from train.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)


def _batch(method: str, photos: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (photos, 4, 3, 32, 32) if method == "rotnet" else (photos, 3, 32, 32)
    names = ("view_1", "view_2") if method == "byol" else ("image",)
    batch = {name: torch.randn(shape, generator=generator, dtype=torch.double) for name in names}
    return batch | {"label": torch.arange(photos) % 3}


@pytest.mark.parametrize("method", ["byol", "rotnet", "supervised"])
def test_accumulation_takes_the_step_of_the_whole_batch(method: str, textured: Path, tmp_path: Path) -> None:
    """Batch-norm groups of four photos, in one pass of eight or in two of four; in double precision."""
    recipe = write_recipe(tmp_path, textured, method, method={"bn_group": 4})
    whole = _batch(method, 8)
    passes = [{name: rows[start : start + 4] for name, rows in whole.items()} for start in (0, 4)]
    after, losses = [], []
    for accumulate, batches in ((1, [whole]), (2, passes)):
        config = read_recipe(recipe, f"accumulate={accumulate}")
        with Trainer(config, CPU) as trainer:
            assert trainer.loader.batch_size == 8 // accumulate
            assert trainer.steps == 48
            trainer.method.double()
            losses.append(trainer.step(iter(batches))["loss"].item())
            after.append([parameter.detach().clone() for parameter in trainer.method.parameters()])
            if accumulate == 1:
                before = trainer.config.optim.lr_at(0, 48, 6, 8)
            assert trainer.optimizer.param_groups[0]["lr"] == before
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    for one, two in zip(*after):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


def test_gradients_are_clipped_only_if_asked_to(textured: Path, tmp_path: Path) -> None:
    lengths = []
    for words in ((), ("optim.clip_norm=0.001",)):
        config = read_recipe(write_recipe(tmp_path, textured, "supervised"), *words)
        with Trainer(config, CPU) as trainer:
            trainer.method.double()
            trainer.step(iter([_batch("supervised", 8)]))
            grads = [p.grad.flatten() for p in trainer.method.parameters()]
            lengths.append(torch.cat(grads).norm().item())
    assert lengths[0] > 0.1
    assert lengths[1] == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_in_bfloat16_compiled(
    method: str, textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tracing of torch.compile and without its code generation, which takes minutes; checkpoints
    keep their names."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    recipe = write_recipe(tmp_path, textured, method)
    words = ("precision=bfloat16", "compile=true", "epochs=1", "optim.milestones=[]")
    with Trainer(read_recipe(recipe, *words), CPU) as trainer:
        names = set(trainer.method.state_dict())
        values = trainer.step(iter(trainer.loader))
        assert torch.isfinite(values["loss"])
        assert values["loss"].dtype == torch.float32
        assert not any("_orig_mod" in name for name in names)
        if method in ("rotnet", "supervised"):
            assert values["accuracy"] <= 1


def test_passes_too_few_for_a_step_are_left_out(textured: Path, tmp_path: Path) -> None:
    """50 photos in passes of five: three steps of three and one left over; in two epochs six."""
    recipe = write_recipe(tmp_path, textured, "rotnet", method={"bn_group": 2}, epochs=2)
    words = ("data.batch_size=15", "accumulate=3", "method.bn_group=5", "data.crop.size=16")
    config = read_recipe(recipe, *words)
    train(config, tmp_path / "out")
    lines = [line for line in read_log(tmp_path / "out" / "log.jsonl")[0] if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in lines] == [0, 0, 0, 1, 1, 1]


def test_a_run_of_no_steps_is_an_error(textured: Path, tmp_path: Path) -> None:
    """Two passes of 25 photos: no step of three."""
    recipe = write_recipe(tmp_path, textured, "rotnet", method={"bn_group": 5})
    config = read_recipe(recipe, "data.batch_size=75", "accumulate=3")
    with pytest.raises(UserError, match="accumulate=3: an epoch has 2 passes"):
        Trainer(config, CPU)


def test_an_unreadable_checkpoint_is_named(textured: Path, tmp_path: Path) -> None:
    config, out = read_recipe(write_recipe(tmp_path, textured)), tmp_path / "out"
    path = out / "checkpoints" / "step-00000005.pt"
    path.parent.mkdir(parents=True)
    executed = tmp_path / "executed"
    pickled = f"cos\nsystem\n(S'touch {executed}'\ntR.".encode()
    for content in (b"", b"not a checkpoint", pickled, b".", b"\x80", b"\x80\x02X"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: cannot be read as a checkpoint"):
            train(config, out, resume=True)
    assert not executed.exists()
    torch.save({"version": 1, "some": "thing"}, path)
    with pytest.raises(UserError, match="not a checkpoint of version 2"):
        train(config, out, resume=True)


class Model:
    """Of another project."""


FOREIGN = {
    "it is empty": b"",
    "it is a page of HTML": b"\n<!DOCTYPE html><title>404",
    "it is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "it looks like safetensors": b'\x10\0\0\0\0\0\0\0{"a": 1}',
    "it is a gzip archive": b"\x1f\x8b\x08",
    "it holds other objects than tensors": pickle.dumps(Model()),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_is_said(tmp_path: Path, kind: str) -> None:
    """And not how to load it all the same."""
    path = tmp_path / "weights.pt"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(UserError, match=f"weights.pt: cannot be read as a checkpoint: {kind}") as error:
        checkpoint.read(path)
    assert "weights_only" not in str(error.value)
    assert str(error.value).isprintable()
    torch.save(Model(), path)
    with pytest.raises(UserError, match="it holds other objects than tensors"):
        checkpoint.read(path)


def _record(step: int) -> CheckpointRecord:
    return CheckpointRecord(
        **{"version": 2, "step": step, "epochs": 0.5, "identity": "", "config": "", "backbone": ""},
        **{"data": {}, "metrics": {}, "method": {"weight": torch.arange(4096.0)}, "optimiser": {}},
        ranks=[],
    )


def _checkpoints(folder: Path, steps: int) -> list[Path]:
    return [checkpoint.write(folder, _record(step)) for step in range(1, steps + 1)]


def test_no_damage_of_a_checkpoint_is_read_as_data(tmp_path: Path) -> None:
    """Flipped bits, zeros and other bytes anywhere: refused, or the same state to the bit."""
    [path] = _checkpoints(tmp_path, 1)
    whole, before = path.read_bytes(), checkpoint.load(path)
    rng, refused = np.random.default_rng(0), 0
    for trial in range(150):
        data = bytearray(whole)
        start = int(rng.integers(len(data)))
        if trial % 3 == 0:
            data[start] ^= 1 << int(rng.integers(8))
        else:
            data[start : start + 40] = rng.bytes(40) if trial % 3 == 1 else bytes(40)
        path.write_bytes(data)
        try:
            found = checkpoint.load(path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert torch.equal(found.method["weight"], before.method["weight"])
            assert found.model_dump(exclude={"method"}) == before.model_dump(exclude={"method"})
    assert refused > 100


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    paths = _checkpoints(tmp_path, 3)
    record, problems = checkpoint.load_newest(tmp_path)
    assert (record.step, problems) == (3, [])
    for path in paths[:0:-1]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    record, problems = checkpoint.load_newest(tmp_path)
    assert record.step == 1
    assert [str(path) in problem for path, problem in zip(paths[:0:-1], problems, strict=True)] == [True] * 2
    paths[0].write_bytes(b"")
    assert checkpoint.load_newest(tmp_path)[0] is None


def test_keys_have_other_company_than_queries(textured: Path, tmp_path: Path) -> None:
    """Accumulating, MoCo-v2 needs two groups a pass to shuffle between; with them it runs."""
    recipe = write_recipe(tmp_path, textured)
    with pytest.raises(
        UserError, match="accumulate=2, method.bn_group=4: keys cannot be shuffled among the 4 photos"
    ):
        Trainer(read_recipe(recipe, "accumulate=2"), CPU)
    with pytest.warns(UserWarning, match="method.bn_group=8: keys cannot be shuffled among the 8 photos"):
        Trainer(read_recipe(recipe, "method.bn_group=8"), CPU)
    config = read_recipe(recipe, "accumulate=2", "method.bn_group=2")
    with Trainer(config, CPU) as trainer:
        batches = iter(trainer.loader)
        trainer.step(batches)
        assert trainer.method.queue_ptr.item() == 8
        assert trainer.loader.batch == 2


@pytest.mark.parametrize("links", [True, False])
def test_checkpoints_kept_for_good(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # exFAT, say
        monkeypatch.setattr(os, "symlink", Mock(side_effect=PermissionError(errno.EPERM, "no links here")))
    words = ("keep_checkpoints=2", "keep_every_epochs=1")
    checkpointer = Checkpointer(read_recipe(write_recipe(tmp_path, textured), *words), tmp_path)
    for step in range(1, 8):
        checkpoint.write(checkpointer.folder, _record(step))
        checkpointer.prune(steps_per_epoch=3)
        assert (checkpointer.folder / "latest.pt").is_symlink() == links
        assert checkpoint.load(checkpointer.folder / "latest.pt").step == step
    paths = checkpoint.list_checkpoints(checkpointer.folder)
    assert [checkpoint.step_of(path) for path in paths] == [3, 6, 7]


def test_a_run_in_another_thread(textured: Path, tmp_path: Path) -> None:
    """Where Python takes no signals."""
    recipe = read_recipe(write_recipe(tmp_path, textured), "epochs=1")
    thread = threading.Thread(target=train, args=(recipe, tmp_path / "out"))
    thread.start()
    thread.join(60)
    assert (tmp_path / "out" / "backbone.pt").is_file()


def test_copies_that_srun_started_are_refused(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match=r"srun has started 4 of these .*torchrun"):
        train(read_recipe(write_recipe(tmp_path, textured)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
