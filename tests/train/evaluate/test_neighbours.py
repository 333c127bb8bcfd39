"""k-NN answers as NumPy does, on any number of ranks, from the command line and while training."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_log
from tests.helpers.processes import run
from tests.helpers.runs import read_recipe, use_tiny_net, write_recipe
from tests.helpers.sets import COLOURS, image
from train import checkpoint
from train.distributed import process_group, rank, world_size
from train.evaluate.__main__ import main
from train.evaluate.backbone import load_backbone
from train.features import evaluation_config
from train.loop import train
from train.neighbours import knn, nearest_classes


def _numpys(
    features: np.ndarray, bank: np.ndarray, labels: np.ndarray, k: int, temperature: float
) -> list[int]:
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features, bank)]
    answers = []
    for row in unit[0]:
        similarity = unit[1] @ row
        nearest = np.argsort(-similarity)[:k]
        votes = np.bincount(labels[nearest], np.exp(similarity[nearest] / temperature), minlength=5)
        answers.append(int(votes.argmax()))
    return answers


def _rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 6)), rng.normal(size=(80, 6)), rng.integers(0, 5, 80)


def _on_a_rank(path: Path) -> None:
    with process_group(torch.device("cpu")):
        features, bank, labels = map(torch.from_numpy, _rows())
        own = slice(80 * rank() // world_size(), 80 * (rank() + 1) // world_size())
        found = nearest_classes(features, bank[own], labels[own], 7, 0.1)
        few = nearest_classes(features, bank[:3][own], labels[:3][own])  # some ranks have none
        (path / f"{rank()}.json").write_text(json.dumps([found.tolist(), few.tolist()]))


def test_nearest_classes_are_numpys() -> None:
    features, bank, labels = _rows()
    found = nearest_classes(*map(torch.from_numpy, (features, bank, labels)), 7, 0.1)
    assert found.tolist() == _numpys(features, bank, labels, 7, 0.1)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_share_a_bank_answer_as_one_with_all_of_it(tmp_path: Path, ranks: int) -> None:
    run(_on_a_rank, tmp_path, ranks=ranks)
    features, bank, labels = _rows()
    expected = [_numpys(features, bank, labels, 7, 0.1), _numpys(features, bank[:3], labels[:3], 20, 0.07)]
    for number in range(ranks):
        assert json.loads((tmp_path / f"{number}.json").read_text()) == expected


def _top1(run: Path, bank: Path, test: Path) -> float:
    network, config, *_ = load_backbone(run)
    sets = (evaluation_config(config.data, path) for path in (bank, test))
    return knn(network, *sets, torch.device("cpu"))["top1"]


def test_sets_of_other_classes_are_refused(untrained: Path, coloured: Path, textured: Path) -> None:
    with pytest.raises(UserError, match=r"--test=.*its 3 classes are not the 3 of --data=.*blue, class0"):
        _top1(untrained, coloured, textured)


def test_from_the_command_line(
    untrained: Path, coloured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes that are colours: even random features have the right neighbours. Photos may lie in folders."""
    photos = coloured.parent / "photos"
    words = ["--checkpoint", str(untrained), "--data", str(coloured), "--test", str(photos), "--k", "5"]
    monkeypatch.setattr(sys, "argv", ["evaluate", "knn", *words, "batch_size=16", "device=cpu"])
    main()
    result = json.loads((untrained / "knn.json").read_text())
    assert result["test"] == {"shards": str(photos), "photos": 36}
    assert (result["top1"], result["k"], result["bn"], result["ranks"]) == (1.0, 5, "eval", 1)
    assert "top1         100.00%" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["evaluate", "knn", *words[:-1], "0"])
    with pytest.raises(UserError, match=r"--k=0 --temperature=0.07: both must be above 0"):
        main()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("foo=1", "foo: unknown key (value 1); remove it or correct its spelling"),
        ("crop.foo=3", "views.image.crop.foo: unknown key (value 3); remove it or correct its spelling"),
        ("batch_size=x", "batch_size='x': Input should be a valid integer"),
        ("data.half=3", "half=3: Input should be a valid boolean"),
    ],
)
def test_wrong_loader_words(
    untrained: Path, coloured: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    places = ["--checkpoint", str(untrained), "--data", str(coloured), "--test", str(coloured)]
    for words in (["knn"], ["linear", "--fast"]):
        monkeypatch.setattr(sys, "argv", ["evaluate", *words, *places, "device=cpu", word])
        with pytest.raises(UserError) as error:
            main()
        assert str(error.value) == f"--data={coloured}:\n  {message}"


def test_every_loader_key_may_be_given(
    untrained: Path, coloured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of what is shown: photos of 16 pixels, of which random features still know the colour."""
    words = ["--checkpoint", str(untrained), "--data", str(coloured), "--test", str(coloured), "--k", "5"]
    words += ["device=cpu", "crop.size=16", "resize=20", "prefetch=1", "reader_depth=1"]
    monkeypatch.setattr(sys, "argv", ["evaluate", "knn", *words, "normalise.std=[0.5, 0.5, 0.5]"])
    main()
    assert json.loads((untrained / "knn.json").read_text())["top1"] == 1.0


def _judgements(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl")[0] if "knn_accuracy" in line]


def test_while_training(tmp_path: Path, coloured: Path) -> None:
    """Every second epoch, without a trace in what is trained, and what the last checkpoint gives."""
    recipe = write_recipe(tmp_path, coloured, epochs=3)
    judged = (f"knn.test={coloured.parent / 'photos'}", "knn.every_epochs=2")
    train(read_recipe(recipe, *judged), tmp_path / "judged")
    train(read_recipe(recipe), tmp_path / "plain")
    states = [checkpoint.load(tmp_path / name / "checkpoints" / "latest.pt") for name in ("judged", "plain")]
    for name, value in states[0].method.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, states[1].method[name])
    lines = _judgements(tmp_path / "judged")
    assert [(line["step"], line["knn_epoch"]) for line in lines] == [(8, 2)]
    card = json.loads((tmp_path / "judged" / "backbone.json").read_text())
    assert (card["metrics"]["knn_accuracy"], card["metrics"]["knn_epoch"]) == (lines[0]["knn_accuracy"], 2)

    train(read_recipe(recipe, *judged, "epochs=4"), tmp_path / "even")
    top1 = _top1(tmp_path / "even", coloured, coloured.parent / "photos")
    assert _judgements(tmp_path / "even")[-1]["knn_accuracy"] == top1
    card = json.loads((tmp_path / "even" / "backbone.json").read_text())
    assert card["metrics"]["knn_accuracy"] == top1


def test_a_damaged_photo_of_knn_costs_no_progress(tmp_path: Path, coloured: Path) -> None:
    """Its file is named, and the run goes on behind that epoch."""
    test = tmp_path / "test"
    for name, colour in COLOURS.items():
        image(test / name / "a.png", colour)
    (test / "red" / "b.png").write_bytes(b"no image")
    recipe = write_recipe(tmp_path, coloured, epochs=3)
    config = read_recipe(recipe, f"knn.test={test}", "knn.every_epochs=2")
    with pytest.raises(UserError, match=r"(?s)cannot be used.*red/b.png cannot be decoded"):
        train(config, tmp_path / "run")
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "latest.pt").step == 8
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "backbone.pt").exists()


def _judge(recipe: Path, test: Path, out: Path) -> None:
    use_tiny_net()
    train(read_recipe(recipe, f"knn.test={test}", "knn.every_epochs=2"), out)


def test_ranks_judge_together_by_the_first_ones_statistics(tmp_path: Path, coloured: Path) -> None:
    recipe = write_recipe(tmp_path, coloured, epochs=2)
    run(_judge, recipe, coloured.parent / "photos", tmp_path / "run", ranks=2)
    top1 = _top1(tmp_path / "run", coloured, coloured.parent / "photos")
    assert _judgements(tmp_path / "run")[-1]["knn_accuracy"] == top1


def test_low_temperatures_do_not_overflow() -> None:
    """Of each row's neighbours its own class is by far the nearest."""
    bank = torch.eye(8)
    labels = torch.arange(8)
    assert nearest_classes(bank, bank, labels, 5, 1e-3).tolist() == labels.tolist()


def test_while_training_on_other_classes_is_refused_at_once(
    tmp_path: Path, coloured: Path, textured: Path
) -> None:
    recipe = write_recipe(tmp_path, coloured)
    with pytest.raises(UserError, match=r"knn.test=.*its 3 classes are not the 3 of knn.bank="):
        train(read_recipe(recipe, f"knn.test={textured}", "knn.every_epochs=1"), tmp_path / "run")
    with pytest.raises(UserError, match=r"every_epochs=1: give knn.test"):
        read_recipe(recipe, "knn.every_epochs=1")
