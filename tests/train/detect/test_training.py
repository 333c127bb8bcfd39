"""A detection training: what it leaves, that it goes on to the bit, on ranks, errors."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, read_log
from tests.helpers.detect import read_config, train_rank, write_backbone, write_set
from tests.helpers.processes import SECONDS, finish, launch, run
from train import checkpoint
from train.detect.training import train
from train.records import DetectRecord


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("squares")
    write_backbone(folder / "b.pt")
    return {**write_set(folder / "set"), "init": str(folder / "b.pt")}


@pytest.fixture(scope="module")
def whole(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(train_rank, values, out)
    return out


def _same(one: Path, other: Path) -> bool:
    first, second = (torch.load(out / "detector.pt", weights_only=True) for out in (one, other))
    assert set(first) == set(second)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_it_leaves(whole: Path) -> None:
    """Rates: from a thousandth of .02 up in two steps, a tenth of it from the third on."""
    lines, _ = read_log(whole / "log.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines] == pytest.approx([2e-5, 0.01001, 0.02, 0.002])
    parts = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][name] for name in parts))
    result = read_json(whole / "detect.json", "")
    assert (result["protocol"], result["steps"], result["photos"]) == (
        "detect-voc",
        4,
        {"train": 4, "test": 2},
    )
    assert set(result["boxes"]) == {"ap", "ap50", "ap75", "classes"}
    assert list(result["boxes"]["classes"]) == ["square"]
    assert len(result["trunk_sha256"]) == 64
    assert [checkpoint.step_of(path) for path in checkpoint.list_checkpoints(whole / "checkpoints")] == [2, 4]


def test_every_weight_is_trained(whole: Path, values: dict[str, Any]) -> None:
    """Nothing is frozen: all of the trunk moves away from where it began."""
    before = torch.load(values["init"], weights_only=True)
    after = torch.load(whole / "detector.pt", weights_only=True)
    for name, value in before.items():
        place = f"roi_heads.{name}" if name.startswith("layer4") else f"backbone.{name}"
        assert not torch.equal(after[place], value), name


def test_kill_9_loses_nothing(whole: Path, values: dict[str, Any], tmp_path: Path) -> None:
    """Killed once the second step of four has its checkpoint: the same log, the same bytes in the end."""
    out = tmp_path / "out"
    [process] = launch(train_rank, values, out)
    deadline = time.monotonic() + SECONDS
    while not checkpoint.list_checkpoints(out / "checkpoints"):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "detector.pt").exists()
    run(train_rank, values, out)
    assert _same(out, whole)
    logs = [[(line["step"], line["loss"]) for line in read_log(one / "log.jsonl")[0]] for one in (out, whole)]
    assert logs[0] == logs[1]
    assert read_json(out / "detect.json", "")["boxes"] == read_json(whole / "detect.json", "")["boxes"]


def test_a_finished_one_is_tested_again(whole: Path, values: dict[str, Any]) -> None:
    before = read_json(whole / "detect.json", "")
    (whole / "detect.json").unlink()
    run(train_rank, values, whole)
    assert read_json(whole / "detect.json", "") == before


def test_two_ranks_are_one(values: dict[str, Any], tmp_path: Path) -> None:
    """They share gradients and batch norm's statistics, each tests half of the photos, and one writes.

    Of one size of photos, and with all boxes learnt from, ranks draw nothing that one would draw otherwise.
    """
    alike = {**values, "steps": 3, "short_sides": [40], "samples": 64, "proposals": [8, 40], "lr": 1e-3}
    alike["checkpoint_every"] = 3
    outs = [tmp_path / "one", tmp_path / "two"]
    both = [launch(train_rank, alike, out, ranks=ranks) for ranks, out in enumerate(outs, 1)]
    assert [finish(processes) for processes in both] == [[0], [0, 0]]
    one, two = ([line["loss"] for line in read_log(out / "log.jsonl")[0]] for out in outs)
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-5)
    first, second = (torch.load(out / "detector.pt", weights_only=True) for out in outs)
    for name, value in first.items():
        # Batch norm of two photos makes much of how floats were rounded; weights move by more than this.
        bounds = {"rtol": 0.02, "atol": 0.02} if "running" in name else {"rtol": 1e-3, "atol": 5e-5}
        torch.testing.assert_close(second[name], value, **bounds, msg=name)
    results = [read_json(out / "detect.json", "") for out in outs]
    assert results[0]["boxes"]["ap50"] > 0
    assert results[0] == results[1]


def test_another_training_in_the_folder(whole: Path, values: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    for changes in ({"seed": 1}, {"init": None}):
        with pytest.raises(UserError, match="holds a training with another config, other photos or another"):
            train(read_config(values, **changes), whole)


def test_damaged_checkpoints(values: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """The one before will do; without any it does not start anew by itself."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    paths = checkpoint.list_checkpoints(out / "checkpoints")
    paths[-1].write_bytes(paths[-1].read_bytes()[:-100])
    record, problems = checkpoint.load_newest(out / "checkpoints", DetectRecord)
    assert (record.step, len(problems)) == (2, 1)
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        train(read_config(values), out)


def test_a_loss_that_is_no_number(values: dict[str, Any], tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    changes = {"lr": 1e20, "warmup_steps": 0}
    assert finish(launch(train_rank, {**values, **changes}, tmp_path / "out", errors=told)) == [2]
    assert "no numbers after step" in told.read_text() or "not finite" in told.read_text()


def test_a_batch_that_does_not_divide(values: dict[str, Any], tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    processes = launch(train_rank, {**values, "batch_size": 3}, tmp_path / "out", ranks=2, errors=told)
    assert finish(processes) == [2, 2]
    assert "batch_size=3: must be divisible by the 2 ranks" in told.read_text()
