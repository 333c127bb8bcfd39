"""The gap: accuracies of a classifier whose answers are known, in ImageNet-9's layout, by names or a map."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from pipelines import LoaderConfig
from tests.helpers.sets import COLOURS, image
from tools.synthetic.background_challenge import SPLITS as CHALLENGE
from tools.synthetic.background_challenge import make_challenge
from train.evaluate.__main__ import main
from train.evaluate.background_gap import SPLITS, background_gap, find_splits, open_splits, read_class_map
from train.features import Runtime, evaluation_config

CPU = torch.device("cpu")
READING = evaluation_config(
    LoaderConfig(shards=Path("none"), crop={"size": 32}, normalise={"mean": [0, 0, 0], "std": [1, 1, 1]}),
    Path("none"),
    runtime=Runtime(batch_size=4),
)
CLASSES = ["blue", "green", "red"]


def _by_colour(images: torch.Tensor) -> torch.Tensor:
    """Logits [n, 3] of blue, green, red: how much there is of each."""
    return images.mean(dim=(2, 3)).flip(1)


def _gap(classifier: Callable, classes: list[str], root: Path, class_map: Path | None = None) -> dict:
    return background_gap(classifier, open_splits(root, classes, class_map), READING, CPU)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of one colour: mixed_same has all in their folders, mixed_rand one in three, no_fg none."""
    for split, inner in (("mixed_same", "val"), ("mixed_rand", "val"), ("no_fg", "")):
        for label, name in enumerate(CLASSES):
            for number in range(3):
                turn = {"mixed_same": 0, "mixed_rand": number, "no_fg": 1}[split]
                colour = COLOURS[CLASSES[(label + turn) % 3]]
                image(tmp_path / split / inner / name / f"{number}.png", colour)
    return tmp_path


def test_accuracies_and_the_gap(root: Path) -> None:
    found = _gap(_by_colour, CLASSES, root)
    assert found == {
        "bg_gap": 0.6667,
        "splits": {
            "mixed_same": {"accuracy": 1.0, "photos": 9},
            "mixed_rand": {"accuracy": 0.3333, "photos": 9},
            "no_fg": {"accuracy": 0.0, "photos": 9},
        },
    }


def test_a_class_map_counts_what_the_likeliest_class_belongs_to(root: Path, tmp_path: Path) -> None:
    """Six classes, of which two are blue, one is green, and others belong to no folder."""

    def six(images: torch.Tensor) -> torch.Tensor:
        blue, green, red = _by_colour(images).unbind(1)
        return torch.stack([blue - 1, blue, green, red, red - 1, red - 2], dim=1)

    path = tmp_path / "map.json"
    path.write_text(json.dumps({"0": 0, "1": 0, "2": 1, "3": -1, "4": 2, "5": 2}))
    found = _gap(six, [f"n{i}" for i in range(6)], root, path)
    assert found["splits"]["mixed_same"]["accuracy"] == 0.6667  # red is class 3, which belongs to none
    path.write_text(json.dumps({"n0": "blue", "n1": "blue", "n2": "green", "n3": "red", "n4": -1, "n5": -1}))
    found = _gap(six, [f"n{i}" for i in range(6)], root, path)
    assert found["splits"]["mixed_same"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"0": 0, "1": 1}, r"has 2 entries, the classifier 3 classes \(blue, .*\); none for red"),
        (
            {str(number): number % 3 for number in range(1000)},
            r"1000 entries, .* 3 classes \(blue, green, red\); 997 are none of these: 3, 4, .* and 989 more",
        ),
        ({"0": 0, "1": 1, "2": 2, "3": -1}, r"1 are none of these: 3: give a map of the classifier's own"),
        ({"cat": 0, "dog": 1, "cow": 2}, r"3 are none of these: cat, dog, cow; none for blue, green, red"),
        ({"blue": 0, "green": 1, "red": 2, "n01": -1}, r"1 are none of these: n01"),
        (
            {"00": 0, "1.0": 1, "-1": 2, "2": 0},
            r"3 are none of these: 00, 1.0, -1; none for blue, green: give",
        ),
        (
            {"blue": 0, "green": 1, "red": 2, "0": 1},
            r"blue, class 0 .*, has two folders, 0 and 1; give it by",
        ),
        ({"0": 0, "1": 1, "2": 3}, r"3 is no folder; there are 3: blue, green, red; -1 means none"),
        ({"0": 0, "1": 1, "2": "grey"}, r"'grey' is no folder"),
        ({"0": 0, "1": 1, "2": True}, r"True is no folder"),
        ([0, 1, 2], r"expected \{class: folder\}, found a list"),
    ],
)
def test_bad_class_maps(entries: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        read_class_map(path, CLASSES, CLASSES)


def test_class_maps_are_spelled_in_many_ways(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"caf\u00e9": "the\u0301", "1": -1}', encoding="utf-8-sig")
    assert read_class_map(path, ["cafe\u0301", "tea"], ["a", "th\u00e9"]).tolist() == [1, -1]
    path.write_text('{"1": 0, "10": 1, "2": -1}')  # names go before numbers
    assert read_class_map(path, ["1", "10", "2"], ["a", "b"]).tolist() == [0, 1, -1]


def test_class_maps_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"blue": 0, "blue": 1, "green": 1, "red": 2}')
    with pytest.raises(UserError, match=r"--class-map=.*map.json: 'blue' comes twice"):
        read_class_map(tmp_path / "map.json", CLASSES, CLASSES)
    with pytest.raises(UserError, match=r"--class-map=.*nowhere.json: cannot be read"):
        read_class_map(tmp_path / "nowhere.json", CLASSES, CLASSES)
    with pytest.raises(UserError, match=r"has 3 classes, the folders are 2 \(only in one of them: red\)"):
        read_class_map(None, CLASSES, CLASSES[:2])


def test_without_both_mixed_splits_there_is_no_gap(root: Path) -> None:
    for path in sorted((root / "mixed_rand").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "mixed_rand").rmdir()
    found = _gap(_by_colour, CLASSES, root)
    assert found["bg_gap"] is None
    assert set(found["splits"]) == {"mixed_same", "no_fg"}


def test_empty_folders_are_refused(root: Path, tmp_path: Path) -> None:
    (root / "mixed_rand" / "val" / "black").mkdir()
    with pytest.raises(UserError, match=r"--data: mixed_rand=.*no photos .* in black; every folder"):
        _gap(_by_colour, CLASSES, root)
    (root / "mixed_rand" / "val" / "black").rmdir()
    (tmp_path / "only_fg" / "val").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"only_fg/val: neither packed shards .* nor a folder of class folders"
    ):
        _gap(_by_colour, CLASSES, root)
    with pytest.raises(UserError, match=r"has none of the folders original, mixed_same"):
        find_splits(root / "no_fg")
    with pytest.raises(UserError, match=r"--data=.*nowhere: does not exist"):
        find_splits(root / "nowhere")


def test_a_damaged_image_is_named(root: Path) -> None:
    (root / "mixed_rand" / "val" / "blue" / "1.png").write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"cannot be used:\n  .*mixed_rand/val/blue/1.png cannot be decoded\nreplace them"
    ):
        _gap(_by_colour, CLASSES, root)


def test_from_the_command_line(
    untrained: Path,
    coloured: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On folders that the tool made of photos whose object is the class's colour, before grey: no gap."""
    make_challenge(coloured, tmp_path / "challenge", side=48)
    words = ["evaluate", "background-gap", "--checkpoint", untrained, "--data", tmp_path / "challenge"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--train", str(coloured), "device=cpu"])
    main()
    result = json.loads((untrained / "background-gap.json").read_text())
    accuracy = {name: values["accuracy"] for name, values in result["splits"].items()}
    assert tuple(accuracy) == SPLITS == CHALLENGE
    assert accuracy["original"] == accuracy["mixed_same"] == accuracy["mixed_rand"] == 1.0
    assert result["bg_gap"] == 0.0
    assert accuracy["no_fg"] < 0.7  # black where the colour was
    assert result["classifier"]["rate"] in result["classifier"]["rates"]
    assert "BG-Gap         0.00   points" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(
        UserError, match=r"trained by moco_v2 has no classifier; give the run of a linear probe"
    ):
        main()
