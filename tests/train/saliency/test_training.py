"""A training from stores to an ONNX file: what it leaves, that it goes on after a kill, on ranks, errors."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, read_log
from tests.helpers.processes import finish, launch, run
from tests.helpers.saliency import read_config, train_rank, write_scenes
from train import checkpoint
from train.records import SaliencyCard
from train.saliency.trainer import stages
from train.saliency.training import train

EPOCHS = 4 * 2 + 3


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def whole(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(train_rank, values, out)
    return out


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "saliency.pt", weights_only=True)


def test_stages(values: dict[str, Any]) -> None:
    """Each voter's rounds learn the maps of the round before; the last network learns all last maps."""
    found = stages(read_config(values, refine={"lr": [1e-6, 2e-6], "epochs": 25}))
    assert [(stage.labels, stage.lr, stage.averages) for stage in found] == [
        ((("near", 0),), 1e-6, ("near", 1)),
        ((("near", 1),), 2e-6, ("near", 2)),
        ((("far", 0),), 1e-6, ("far", 1)),
        ((("far", 1),), 2e-6, ("far", 2)),
        ((("near", 2), ("far", 2)), 1e-3, None),
    ]
    assert [stage.epochs for stage in found] == [25, 25, 25, 25, 3]


def test_what_it_leaves(whole: Path, values: dict[str, Any]) -> None:
    lines, _ = read_log(whole / "log.jsonl")
    assert [line["stage"] for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]
    assert lines[-1]["step"] == EPOCHS * 4  # 13 photos in batches of 4, the last one filled up
    assert lines[1]["lr"] == pytest.approx(1e-3 * 0.5**0.9)
    assert lines[-1]["loss"] < lines[-3]["loss"]
    card = SaliencyCard.model_validate(read_json(whole / "saliency.json", ""))
    assert (card.trunk, card.side, card.photos, card.voters) == ("resnet10_narrow", 32, 13, ["near", "far"])
    assert set(card.sha256) == {"saliency.pt", "saliency.onnx"}
    refined = np.asarray(Image.open(whole / "refined/near/a/00.png"))
    np.testing.assert_array_equal(refined, np.load(whole / "data/near-2.npy")[0])
    assert len(checkpoint.list_checkpoints(whole / "checkpoints")) == 2


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """Labels are discs shifted by a fifth of the photo; the network and the random field move them back."""
    values = write_scenes(tmp_path, 24)
    del values["maps"]["near"]
    changes = {"refine": {"lr": [1e-3], "epochs": 20}, "fuse": {"lr": 1e-3, "epochs": 1}}
    run(train_rank, {**values, **changes}, tmp_path / "out")
    photos = np.load(tmp_path / "out/data/photos.npy").astype(int)
    truth = photos[..., 0] - photos[..., 2] > 90
    before, after = (np.load(tmp_path / f"out/data/far-{number}.npy") / 255 for number in (0, 1))
    assert np.abs(after - truth).mean() < 0.8 * np.abs(before - truth).mean()


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 3, 9])
def test_it_goes_on_after_a_kill(whole: Path, values: dict[str, Any], tmp_path: Path, epoch: int) -> None:
    """Wherever it is killed after so many epochs, the same command ends with the same bytes."""
    out = tmp_path / "out"
    [process] = launch(train_rank, values, out)
    deadline = time.monotonic() + 60
    while len(checkpoint.list_checkpoints(out / "checkpoints")) < min(epoch, 2) or _steps(out) < 4 * epoch:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (out / "saliency.pt").exists()
    run(train_rank, values, out)
    assert all(torch.equal(value, _weights(whole)[name]) for name, value in _weights(out).items())
    for name in ("near-1", "near-2", "far-2"):
        assert (out / f"data/{name}.npy").read_bytes() == (whole / f"data/{name}.npy").read_bytes()
    assert [line["loss"] for line in read_log(out / "log.jsonl")[0]] == [
        line["loss"] for line in read_log(whole / "log.jsonl")[0]
    ]


def _steps(out: Path) -> int:
    paths = checkpoint.list_checkpoints(out / "checkpoints")
    return checkpoint.step_of(paths[-1]) if paths else 0


def test_averages_that_are_not_the_checkpoints_begin_their_stage_anew(
    whole: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = read_config(values, refine={"lr": [1e-3, 1e-3], "epochs": 2})
    torch.set_num_threads(1)
    train(config, out)
    paths = checkpoint.list_checkpoints(out / "checkpoints")
    record = checkpoint.load(paths[-1], checkpoint.SaliencyRecord)
    first = record.model_copy(update={"stage": 1, "epoch": 1, "step": 12, "average": 7})
    for path in paths:
        path.unlink()
    checkpoint.write(out / "checkpoints", first)
    (out / "data/near-2.npy").unlink()
    train(config, out)
    assert (out / "data/near-2.npy").read_bytes() == (whole / "data/near-2.npy").read_bytes()


def test_two_ranks(values: dict[str, Any], tmp_path: Path) -> None:
    """Each photo is averaged once an epoch; the loss falls as that of one rank does."""
    run(train_rank, values, tmp_path / "out", ranks=2)
    assert (np.load(tmp_path / "out/data/far-2.npy").reshape(13, -1).max(1) > 50).all()
    losses = [line["loss"] for line in read_log(tmp_path / "out/log.jsonl")[0]]
    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]


def test_accumulation_is_the_same_step_but_for_batch_norm(values: dict[str, Any], tmp_path: Path) -> None:
    run(train_rank, {**values, "accumulate": 2}, tmp_path / "out")
    assert len(read_log(tmp_path / "out/log.jsonl")[0]) == EPOCHS


def test_another_training_in_the_folder(whole: Path, values: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match="holds a training with another config, other photos or another trunk"
    ):
        train(read_config(values, seed=1), whole)
    train(read_config(values, workers=2), whole)  # which changes nothing


def test_damaged_checkpoints(values: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """The one before will do; without any it does not start anew by itself."""
    out = tmp_path / "out"
    os.system(f"cp -r '{whole}' '{out}'")
    newest = checkpoint.list_checkpoints(out / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    before = _weights(out)
    torch.set_num_threads(1)
    train(read_config(values), out)
    assert all(torch.equal(value, before[name]) for name, value in _weights(out).items())
    for path in checkpoint.list_checkpoints(out / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        train(read_config(values), out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": "alexnet"}, "trunk=alexnet: its cells are too coarse"),
        ({"side": 30}, "side"),
        ({"side": 36}, "side=36: must be a multiple of 8"),
        ({"accumulate": 3}, "accumulate=3: must divide batch_size=4"),
        ({"thresholds": {"rbd": 0.3}}, r"thresholds.rbd: no voter of this name in maps \(near, far\)"),
        ({"maps": {}}, "maps"),
        ({"batch_size": 16}, "batch_size=16: must be .* at most the 13 photos"),
    ],
)
def test_bad_values(values: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(read_config(values, **changes), tmp_path / "out")


def test_ranks_on_several_machines(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE=4: .* on one machine"):
        train(read_config(values), tmp_path)


def test_a_loss_that_is_no_number(values: dict[str, Any], tmp_path: Path) -> None:
    [code] = finish(
        launch(
            train_rank,
            {**values, "fuse": {"lr": 1e20, "epochs": 3}, "refine": {"lr": [1e20], "epochs": 1}},
            tmp_path / "out",
        )
    )
    assert code == 2
