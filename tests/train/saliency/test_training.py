"""A training from stores to an ONNX file: what it leaves, that it goes on after a kill, on ranks, errors."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
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
from train.records import SaliencyCard, SaliencyRecord
from train.saliency import trainer as trainer_module
from train.saliency.photos import prepare
from train.saliency.stages import Labels, Trunk, stages
from train.saliency.trainer import SaliencyTrainer
from train.saliency.training import train

EPOCHS = 4 * 3 + 2


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
    assert [stage.epochs for stage in found] == [25, 25, 25, 25, 2]


def test_what_it_leaves(whole: Path, values: dict[str, Any]) -> None:
    lines, _ = read_log(whole / "log.jsonl")
    assert [line["stage"] for line in lines] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5]
    assert lines[-1]["step"] == EPOCHS * 4  # 13 photos in batches of 4, the last one filled up
    assert lines[1]["lr"] == pytest.approx(1e-3 * (2 / 3) ** 0.9)
    assert lines[-1]["loss"] < lines[-2]["loss"]
    assert not (whole / "data/averages").exists()
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
@pytest.mark.parametrize("epoch", [3, 10])
def test_it_goes_on_after_a_kill(whole: Path, values: dict[str, Any], tmp_path: Path, epoch: int) -> None:
    """Wherever it is killed after so many epochs, the same command ends with the same bytes. After 3 the next
    round is under way, whose first epoch must not write over the averages of the last."""
    out = tmp_path / "out"
    [process] = launch(train_rank, values, out)
    deadline = time.monotonic() + 60
    while len(checkpoint.list_checkpoints(out / "checkpoints")) < min(epoch, 2) or _steps(out) < 4 * epoch:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    if epoch == 3:
        while not (out / "data/near-1.npy").exists() and process.is_alive():
            time.sleep(0.01)
        time.sleep(0.2)
    process.kill()
    process.join()
    assert not (out / "saliency.pt").exists()
    assert _steps(out) >= 4 * epoch
    told = tmp_path / "told.txt"
    assert finish(launch(train_rank, values, out, errors=told)) == [0]
    assert "begun anew" not in told.read_text()
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
    whole: Path, values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints of later steps make way, the log has every step once, and the end is the same."""
    out, config = tmp_path / "out", read_config(values)
    torch.set_num_threads(1)
    shutil.copytree(whole, out)
    paths = checkpoint.list_checkpoints(out / "checkpoints")
    record = checkpoint.load(paths[-1], SaliencyRecord)
    for path in paths:
        path.unlink()
    for step in (16, 20):
        changes = {"stage": 1, "epoch": step // 4 - 3, "step": step, "average": 7}
        checkpoint.write(out / "checkpoints", record.model_copy(update=changes))
    (out / "data/near-2.npy").unlink()
    train(config, out)
    assert "stage 2: its averaged maps are not those of the checkpoint; begun anew" in capsys.readouterr().err
    assert (out / "data/near-2.npy").read_bytes() == (whole / "data/near-2.npy").read_bytes()
    steps = [line["step"] for line in read_log(out / "log.jsonl")[0]]
    assert steps == sorted(set(steps)) == [4 * epoch for epoch in range(1, EPOCHS + 1)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_photo_is_predicted_once_an_epoch(ranks: int) -> None:
    """13 photos in batches of 4: the last batch is filled up by three that were there before."""
    parts = []
    for rank in range(ranks):
        trainer = SaliencyTrainer.__new__(SaliencyTrainer)
        trainer.config = SimpleNamespace(seed=3, batch_size=4)
        trainer.data = SimpleNamespace(keys=list(range(13)))
        trainer.rank, trainer.ranks, trainer.stage, trainer.epoch = rank, ranks, 1, 2
        parts.append(list(trainer._batches()))
    assert {len(part) for part in parts} == {4}
    assert all(len(rows) == 4 // ranks for part in parts for rows, _ in part)
    new = sorted(row for part in parts for rows, first in part for row in rows[:first])
    assert new == list(range(13))
    joined = [row for batch in range(4) for part in parts for row in part[batch][0]]
    assert joined[13:] == joined[:3]


@pytest.mark.slow
def test_two_ranks_average_all_photos(values: dict[str, Any], tmp_path: Path) -> None:
    run(train_rank, values, tmp_path / "out", ranks=2)
    maps = np.load(tmp_path / "out/data/far-2.npy").reshape(13, -1)
    assert (maps.max(1) > 150).all() and (maps.min(1) < 100).all()
    assert len(read_log(tmp_path / "out/log.jsonl")[0]) == EPOCHS


def test_accumulated_gradients_are_those_of_the_whole_batch(values: dict[str, Any], tmp_path: Path) -> None:
    """But for batch norm, whose statistics are of a pass: here it is in evaluation mode."""
    found = []
    for parts in (1, 2):
        config = read_config(values, accumulate=parts)
        data = prepare(config.photos, config.maps, 32, None, tmp_path / "data", 1)
        trunk = Trunk(None, [0.5] * 3, [0.2] * 3, "random")
        with SaliencyTrainer(config, data, trunk, torch.device("cpu"), tmp_path / str(parts), 1) as trainer:
            trainer._begin(trainer.stages[-1])
            trainer._module.eval()
            trainer._optimizer = SimpleNamespace(zero_grad=lambda **_: None, step=lambda: None)
            labels = [Labels(np.load(data.maps(voter, 0)), 0.5) for voter in config.maps]
            loss = trainer._step([0, 3, 5, 7], 4, labels, 1.0, None)
            found.append((loss, [one.grad for one in trainer.network.parameters()]))
    (loss, gradients), (other, others) = found
    torch.testing.assert_close(loss, other)
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_mirrored_photos(values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that says how red a photo is, and maps that do: both are mirrored for the same photos, others
    in each epoch, and in phase 2 only."""
    config = read_config(values, batch_size=13, fuse={"epochs": 2, "flip": True})
    data = prepare(config.photos, config.maps, 32, None, tmp_path / "data", 1)
    red = np.load(data.photos)[..., 0]
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    monkeypatch.setattr(trainer_module, "soft_threshold", lambda *given: shown.append(given[:2]) or given[:2])
    monkeypatch.setattr(trainer_module, "f_loss", lambda probability, *_: probability.mean((1, 2)))
    trunk = Trunk(None, [0.0] * 3, [1.0] * 3, "random")
    with SaliencyTrainer(config, data, trunk, torch.device("cpu"), tmp_path / "out", 1) as trainer:
        trainer._module = lambda photos: photos[:, 0].requires_grad_()
        trainer._optimizer = SimpleNamespace(zero_grad=lambda **_: None, step=lambda: None)
        for trainer.stage, trainer.epoch in ((0, 0), (4, 0), (4, 1)):
            trainer._step(list(range(13)), 13, [Labels(red, 0.5)], 1.0, None)
    mirrored = []
    for probability, maps in shown:
        torch.testing.assert_close(probability.detach(), maps, atol=1e-6, rtol=0)
        turned = [np.allclose(maps[row], red[row, :, ::-1] / 255) for row in range(13)]
        assert all(turned[row] or np.allclose(maps[row], red[row] / 255) for row in range(13))
        mirrored.append(turned)
    assert sum(mirrored[0]) == 0
    assert 2 <= sum(mirrored[1]) <= 11
    assert mirrored[1] != mirrored[2]


def test_another_training_in_the_folder(whole: Path, values: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match="holds a training with another config, other photos or another trunk"
    ):
        train(read_config(values, seed=1), whole)
    train(read_config(values, workers=2), whole)  # which changes nothing


def test_damaged_checkpoints(values: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """The one before will do; without any it does not start anew by itself."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
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
        ({"maps": {"a/b": "s"}}, "maps"),
        ({"thresholds": {"near": 31.0}}, "thresholds.near"),
        ({"refine": {"lr": [-1e-3]}}, "refine.lr"),
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
    """Both ranks see it, and neither waits for the other."""
    changes = {"fuse": {"lr": 1e20, "epochs": 2}, "refine": {"lr": [1e20], "epochs": 1}}
    told = tmp_path / "told.txt"
    assert finish(launch(train_rank, {**values, **changes}, tmp_path / "out", ranks=2, errors=told)) == [2, 2]
    assert "or weights are no numbers, in stage 'near, round 1 of 1', epoch 1" in told.read_text()


def test_the_order_of_voters_is_part_of_a_training(whole: Path, values: dict[str, Any]) -> None:
    turned = {name: values["maps"][name] for name in ("far", "near")}
    with pytest.raises(UserError, match="holds a training with another config"):
        train(read_config({**values, "maps": turned}), whole)


def test_a_run_of_another_kind(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    (tmp_path / "out/checkpoints/step-00000001.pt").write_bytes(b"a run")
    with pytest.raises(UserError, match="holds a run of another kind; choose another --out"):
        train(read_config(values), tmp_path / "out")
    assert not (tmp_path / "out/data").exists()
