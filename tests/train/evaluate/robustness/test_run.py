"""A pass over a set: every photo once, in batches of any size, on any ranks, whatever is damaged."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers import processes
from tests.helpers.judging import (
    CPU,
    RUNTIME,
    colour_network,
    colour_photos,
    colour_set,
    judge_rank,
)
from train.evaluate.robustness.run import evaluate_set, how_shown, judge_photos, set_config, set_digest
from train.features import Runtime


@pytest.mark.parametrize("batch", [1, 4, 7, 50])
def test_every_photo_is_judged_once(tmp_path: Path, batch: int) -> None:
    """Also where the last batch is padded."""
    network, photos = colour_network(), colour_set(tmp_path, colour_photos(tmp_path, 10))
    config = set_config(network, photos, Runtime(batch_size=batch, device="cpu", threads=1), "ignore")
    found = evaluate_set(network, photos, config, CPU)
    assert found["value"] == 1
    assert found["photos"] == 10
    assert found["judged"] == list(range(10))
    assert found["rows"] == [[1, number % 3] for number in range(10)]
    assert found["unread"] == []
    assert found["protocol"] == "folders"


def test_ranks_share_a_set(tmp_path: Path) -> None:
    """Each photo is judged by one of them; all have the same result, whoever met the damaged photos."""
    files = colour_photos(tmp_path / "photos", 8)
    for number in (1, 6):
        (tmp_path / "photos" / files[number]).write_bytes(b"\xff\xd8 cut short")
    processes.run(judge_rank, tmp_path / "photos", files, tmp_path, ranks=3)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    judged = [number for result in results for number in result.pop("judged")]
    assert sorted(judged) == [0, 2, 3, 4, 5, 7]
    assert all(result == results[0] for result in results)
    assert results[0]["photos"] == 6
    assert results[0]["unread"] == [files[1], files[6]]
    assert results[0]["rows"][:3] == [[1, 0], [-1, -1], [1, 2]]


def test_more_ranks_than_photos(tmp_path: Path) -> None:
    files = colour_photos(tmp_path / "photos", 1)
    processes.run(judge_rank, tmp_path / "photos", files, tmp_path, ranks=2)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text())["rows"] == [[1, 0]]


@pytest.mark.parametrize("relative", [False, True])
def test_what_cannot_be_shown_costs_itself_only(
    tmp_path: Path, relative: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged, empty, gone, too small: left out, listed and said; no other photo is lost or judged twice."""
    files = colour_photos(tmp_path, 23)
    bad = {3: b"\xff\xd8 cut short", 4: b"", 12: b"no picture", 22: b"\x89PNG\r\n\x1a\n"}
    for number, data in bad.items():
        (tmp_path / files[number]).write_bytes(data)
    (tmp_path / files[9]).unlink()
    Image.new("RGB", (31, 33)).save(tmp_path / files[15])
    monkeypatch.chdir(tmp_path)
    photos = colour_set(Path() if relative else tmp_path, files, resize=None)
    network = colour_network()
    found = evaluate_set(network, photos, set_config(network, photos, RUNTIME, "ignore"), CPU)
    lost = [3, 4, 9, 12, 15, 22]
    assert found["unread"] == [files[number] for number in lost]
    assert found["judged"] == [number for number in range(23) if number not in lost]
    assert (found["value"], found["photos"]) == (1, 17)
    said = capsys.readouterr().err
    for number in lost:
        assert f"mine: left out: {'' if relative else f'{tmp_path}/'}{files[number]}" in said
    assert f"{files[15]} has 31 x 33 pixels, fewer than the 32" in said
    assert "6 photos left out" in said


def test_a_set_of_which_nothing_can_be_shown_is_an_error(tmp_path: Path) -> None:
    photos = colour_set(tmp_path, colour_photos(tmp_path, 3), resize=None, border=8)
    network = colour_network()
    with pytest.raises(UserError, match=r"--set mine=.*: none of its 3 photos can be shown"):
        evaluate_set(network, photos, set_config(network, photos, RUNTIME, "ignore"), CPU)


def test_logits_that_are_no_numbers_are_no_answers(tmp_path: Path) -> None:
    """argmax makes the first class of NaN, and a set of few classes a number that looks fine."""
    network, photos = colour_network(), colour_set(tmp_path, colour_photos(tmp_path, 5))
    network.network.bn.running_mean[1] = float("nan")
    message = r"--set mine=.*: the logits of colours are not finite numbers for 5 of 5 photos \(z/00.png"
    with pytest.raises(UserError, match=message):
        evaluate_set(network, photos, set_config(network, photos, RUNTIME, "ignore"), CPU)


def test_an_error_of_the_score_is_not_blamed_on_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, photos = colour_network(), colour_set(tmp_path, colour_photos(tmp_path, 3))

    def judge(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(photos.score, "judge", judge)
    with pytest.raises(KeyError, match="a mistake"):
        judge_photos(network.network, photos, set_config(network, photos, RUNTIME, "ignore"), CPU)


def test_the_network_is_in_evaluation_mode_without_gradients(tmp_path: Path) -> None:
    network, photos = colour_network(), colour_set(tmp_path, colour_photos(tmp_path, 6))
    network.network.train()
    before = network.network.bn.running_mean.clone()
    evaluate_set(network, photos, set_config(network, photos, RUNTIME, "ignore"), CPU)
    assert not network.network.training
    assert torch.equal(network.network.bn.running_mean, before)
    assert all(parameter.grad is None for parameter in network.network.parameters())


@pytest.mark.parametrize(
    ("values", "orientation", "shown"),
    [
        ({}, "ignore", {"crop": 32, "resize": 37, "border": 0, "orientation": "ignore"}),
        (
            {"resize": 1.0, "border": 2},
            "apply",
            {"crop": 32, "resize": 32, "border": 2, "orientation": "apply"},
        ),
        ({"resize": None}, "ignore", {"crop": 32, "resize": None, "border": 0, "orientation": "ignore"}),
    ],
)
def test_how_a_set_is_shown(tmp_path: Path, values: dict, orientation: str, shown: dict) -> None:
    photos = colour_set(tmp_path, [], **values)
    found = how_shown(set_config(colour_network(), photos, RUNTIME, orientation))
    assert found == {**shown, "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}


def test_the_digest_of_a_set(tmp_path: Path) -> None:
    files = colour_photos(tmp_path, 3)
    before = set_digest(colour_set(tmp_path, files))
    assert set_digest(colour_set(tmp_path, files)) == before
    assert set_digest(colour_set(tmp_path, files[:2])) != before
    os.truncate(tmp_path / files[0], 10)
    assert set_digest(colour_set(tmp_path, files)) != before
