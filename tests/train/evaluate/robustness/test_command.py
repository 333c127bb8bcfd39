"""The command: sets of the line and of a file, results after each, going on after an interruption."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from tests.helpers import judging, processes
from tests.helpers.judging import class_folders, colour_network, run_command
from train.evaluate.robustness import command


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A run and two sets, of six and of nine photos."""
    (tmp_path / "run").mkdir()
    first, second = class_folders(tmp_path / "first", 6), class_folders(tmp_path / "second", 9)
    return ["--checkpoint", str(tmp_path / "run"), "--set", f"mine={first}", "--set", f"other={second}"]


def _results(folder: Path) -> dict[str, Any]:
    return read_json(folder / "run" / "robustness.json", "")


def test_what_results_say(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of class folders, of photos attacked, and of ImageNet-9's layout; one damaged photo is left out."""
    challenge = tmp_path / "in9"
    for split in ("mixed_same", "mixed_rand"):
        class_folders(challenge / split / "val", 3)
    (tmp_path / "second" / "red" / "06.png").write_bytes(b"\x89PNG")
    class_map = tmp_path / "map.json"
    class_map.write_text(json.dumps({"red": "red", "green": "green", "blue": "blue"}))
    sets = tmp_path / "sets.yaml"
    values = {"fgsm": {"folder": str(tmp_path / "first"), "epsilon": 100}}
    values["imagenet-9"] = {"folder": str(challenge), "labels": str(class_map)}
    sets.write_text(yaml.safe_dump(values))
    run_command([*words, "--sets", str(sets)])
    found = _results(tmp_path)
    assert list(found["sets"]) == ["fgsm", "imagenet-9", "mine", "other"]
    head = {name: found[name] for name in ("protocol", "checkpoint", "ranks", "device", "orientation")}
    assert head == {
        **{"protocol": "robustness", "checkpoint": str(tmp_path / "run"), "ranks": 1},
        **{"device": "cpu", "orientation": "ignored"},
    }
    assert found["network"] == {"name": "colours", "sha256": "a" * 64, "backbone": "mean"}
    mine, other, fgsm, nine = (found["sets"][name] for name in ("mine", "other", "fgsm", "imagenet-9"))
    assert (mine["value"], mine["photos"], mine["protocol"], mine["unread"]) == (1, 6, "folders", [])
    assert mine["shown"]["resize"] == 37
    assert {one["device"] for one in (mine, other, fgsm, nine)} == {"cpu"}
    assert (other["value"], other["photos"], other["unread"]) == (1, 8, ["red/06.png"])
    assert (fgsm["value"], fgsm["clean"], fgsm["epsilon"]) == (0, 1, 100)
    assert (nine["value"], nine["bg_gap"], nine["photos"]) == (1, 0, 6)
    said = capsys.readouterr()
    assert "left out: " in said.err
    lines = {line.split()[0]: line.split() for line in said.out.splitlines() if "%" in line}
    assert lines["other"][1:6] == ["100.00%", "8", "photos,", "1", "left"]
    assert lines["fgsm"][1] == "0.00%"
    assert lines["clean"][1] == "100.00%"


def test_a_finished_set_is_not_measured_again(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its photos or options are others, or it is asked for."""
    measured: list[str] = []
    evaluate = command.evaluate_set

    def counted(network: Any, photos: Any, *rest: Any) -> dict[str, Any]:
        measured.append(photos.name)
        return evaluate(network, photos, *rest)

    monkeypatch.setattr(command, "evaluate_set", counted)
    run_command(words)
    before = (tmp_path / "run" / "robustness.json").read_bytes()
    run_command([*words, "batch_size=3"])
    assert measured == ["mine", "other"]
    assert (tmp_path / "run" / "robustness.json").read_bytes() == before
    assert "mine: finished before, 100.00%; --again measures it anew" in capsys.readouterr().out
    run_command([*words, "--again"])
    assert measured == ["mine", "other"] * 2
    os.truncate(tmp_path / "first" / "red" / "00.png", 40)
    run_command(words)
    assert measured[4:] == ["mine"]
    assert "mine: measured before with other photos or options; anew" in capsys.readouterr().out
    assert _results(tmp_path)["sets"]["mine"]["photos"] == 5
    (tmp_path / "first" / "notes.txt").touch()  # nor because of what is no photo, the results themselves, say
    run_command(words)
    assert measured[5:] == []
    fgsm = [*words[:2], "--set", f"fgsm={tmp_path / 'second'}"]
    for more in ([], ["--epsilon=4"], ["--epsilon=4"]):
        run_command([*fgsm, *more])
    assert measured[5:] == ["fgsm", "fgsm"]
    assert list(_results(tmp_path)["sets"]) == ["mine", "other", "fgsm"]
    with pytest.raises(UserError, match="orientation was ignored, now it is applied"):
        run_command([*words, "--orientation=apply"])
    run_command([*words, "--orientation=apply", f"--json={tmp_path / 'turned.json'}"])
    assert measured[7:] == ["mine", "other"]


def test_a_network_that_diverged_has_no_background_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = colour_network()
    network.network.bn.running_mean[0] = float("nan")
    monkeypatch.setattr(judging, "colour_network", lambda: network)
    class_folders(tmp_path / "mixed_rand", 3)
    (tmp_path / "map.json").write_text('{"red": "red", "green": "green", "blue": "blue"}')
    (tmp_path / "sets.yaml").write_text(
        f"imagenet-9: {{folder: '{tmp_path}', labels: '{tmp_path / 'map.json'}'}}"
    )
    words = ["--checkpoint", str(tmp_path), "--sets", str(tmp_path / "sets.yaml")]
    with pytest.raises(UserError, match=r"--set imagenet-9=.*: the logits of colours are not finite"):
        run_command(words)
    assert not (tmp_path / "robustness.json").exists()


def _command(words: list[str], seconds: float) -> None:
    run_command(words, seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_keeps_finished_sets_and_goes_on(
    words: list[str], tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / "robustness.json"
    words = [*words[:-1], words[-1].replace("other=", "slow="), "batch_size=1"]
    [process] = processes.launch(_command, words, 0.2)
    deadline = time.monotonic() + processes.SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert processes.finish([process]) != [0]
    kept = _results(tmp_path)["sets"]
    assert list(kept) == ["mine"]
    run_command(words)
    assert "mine: finished before" in capsys.readouterr().out
    found = _results(tmp_path)["sets"]
    assert found["mine"] == kept["mine"]
    assert found["slow"]["photos"] == 9


def test_ranks_of_a_command(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "second" / "blue" / "05.png").write_bytes(b"")
    processes.run(_command, [*words, "batch_size=4"], 0.0, ranks=2)
    found = _results(tmp_path)
    assert found["ranks"] == 2
    assert [(one["value"], one["photos"]) for one in found["sets"].values()] == [(1, 6), (1, 8)]
    assert found["sets"]["other"]["unread"] == ["blue/05.png"]
    assert not list((tmp_path / "run").glob("*.lock"))
    run_command(["--again", *words])
    alone = _results(tmp_path)
    assert {**alone, "ranks": 2} == found


def test_two_commands_do_not_write_one_file(words: list[str], tmp_path: Path) -> None:
    with (
        processes.holding(tmp_path / "run" / "robustness.json.lock"),
        pytest.raises(UserError, match=r"--json: .*robustness.json.lock"),
    ):
        run_command(words)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "mine=elsewhere"], "--set mine=elsewhere: mine is given twice"),
        (["--set", "nothing"], "--set nothing: expected NAME=DIR"),
        (["--set", "gone=/nowhere/at/all"], "--set gone=/nowhere/at/all: .*does not exist"),
        (["--epsilon=0"], "epsilon=0"),
        (["--weights=x.pt"], "--weights=x.pt: only with --torchvision"),
        (["crop.size=3"], "crop: unknown key"),
        (["batch_size=0"], "batch_size"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_command([*words, *more])


def test_no_set_at_all_and_no_weights_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set: nothing to evaluate on; give NAME=DIR. Names of sets: real"):
        run_command(words[:2])
    with pytest.raises(UserError, match="--torchvision=resnet50: give --weights=FILE"):
        run_command(["--torchvision=resnet50", *words[2:]])
    sets = tmp_path / "sets.yaml"
    sets.write_text("mine: {folder: /x, label: y}\n")
    with pytest.raises(UserError, match=r"--sets=.*sets.yaml: mine:\n.*label: unknown key .*labels"):
        run_command([*words[:2], "--sets", str(sets)])


def test_a_classifier_that_is_fitted_on_a_backbone(untrained: Path, coloured: Path, tmp_path: Path) -> None:
    """Colours are told apart by any features: by those of a run, and of its network before training."""
    words = ["--checkpoint", str(untrained), "--set", f"mine={coloured.parent / 'photos'}"]
    for path, more in {tmp_path / "a.json": [], tmp_path / "b.json": ["--untrained"]}.items():
        run_command([*words, "--train", str(coloured), "--json", str(path), *more])
        found = read_json(path, "")
        assert (found["sets"]["mine"]["value"], found["sets"]["mine"]["photos"]) == (1, 36)
        network = found["network"]
        assert (network["untrained"], network["training"]) == (bool(more), "linear")
        assert network["pretraining"]["method"] == "moco_v2"
        assert network["classifier"]["rate"] in network["classifier"]["rates"]
    with pytest.raises(UserError, match="--untrained: there is nothing to classify with; give --train"):
        run_command([*words, "--untrained"])
    with pytest.raises(UserError, match=r"--train=x: only with --checkpoint"):
        run_command(["--torchvision=alexnet", "--train=x", *words[2:]])
