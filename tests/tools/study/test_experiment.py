"""The experiment: which runs are made, kept and summed up, by recipes that hold; pages from results alone."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from dali_bgaug.config import merge, read_yaml, validate
from dali_bgaug.errors import UserError
from tests.helpers import experiment as helper
from tests.helpers import programs
from tests.helpers.experiment import DEMO, SPLITS
from tests.helpers.runs import ROOT
from tools.study import experiment
from tools.study.experiment import CONDITIONS, SCALES, Condition
from tools.study.experiment_page import BACKGROUNDS, NAMES, page, summary
from train.config import RunConfig


def _row(method: str, background: str, seed: int, accuracy: float, gap: float) -> dict[str, Any]:
    others = {**dict.fromkeys(SPLITS, 0.5), "original": accuracy}
    return {
        **{"method": method, "background": background, "seed": seed, "accuracy": accuracy, "gap": gap},
        **others,
    }


ROWS = [
    *(_row("moco_v2", "none", seed, 0.5, 0.6 + seed / 100) for seed in range(3)),
    *(_row("moco_v2", "random", seed, 0.5 + seed / 100, 0.3) for seed in range(3)),
    _row("untrained", "none", 0, 0.2, 0.1),
]


def test_means_and_standard_errors() -> None:
    plain, random, untrained = summary(ROWS)
    assert plain["accuracy"] == [0.5, 0.0]
    assert plain["gap"] == [0.61, 0.0058]  # .01 / sqrt(3)
    assert "gap_gain" not in plain
    assert random["accuracy"] == [0.51, 0.0058]
    assert random["accuracy_gain"] == [0.01, 0.0058]
    assert random["gap_gain"] == [-0.31, 0.0058]
    assert (random["seeds"], untrained["seeds"], untrained["gap"]) == (3, 1, [0.1, None])
    # A run whose pair is missing has no gain.
    assert "gap_gain" not in summary([*ROWS, _row("byol", "random", 0, 0.5, 0.5)])[-1]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_recipe_holds(condition: Condition, scale: str, own: bool, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    values = experiment._recipe(condition.method, SCALES[scale], own)
    words = {"shards": str(tmp_path), "seed": 2, "threads": 1, "background": condition.values(0.3)}
    recipe.write_text(yaml.safe_dump(merge(values, {"seed": 2, "data": words})))
    config = validate(RunConfig, read_yaml(recipe), str(recipe))
    data = config.data
    assert (config.method.name, data.pipeline) == (condition.method, condition.method)
    assert (config.seed, data.seed, data.background.kind) == (2, 2, condition.background)
    if condition.background != "none":
        assert data.background.p_pos == 0.3
    if condition.background == "swaps":
        assert data.background.p_neg == 0.3
    sides = {view.crop.size for view in data.views.values()}
    assert max(sides) == {"cpu": 32, "gpu": 64}[scale]
    assert values["data"]["crop"]["size"] == max(sides)  # by which the challenge is made
    assert {view.crop.fg_min for view in data.views.values()} == {0.1 if own else 0.5}  # for all conditions
    assert all(view.background for view in data.views.values())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The programs that are started, which train nothing."""
    programs: list[tuple[str, ...]] = []

    def start(module: str, *words: str, **_: object) -> None:
        programs.append((module, *words))
        helper.start(module, *words)

    monkeypatch.setattr(experiment, "start", start)
    monkeypatch.setattr(experiment, "prepare", helper.prepare)
    monkeypatch.setattr(experiment, "demo_set", lambda *_: DEMO)
    return programs


def _main(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["experiment", *words])
    experiment.main()


def test_the_program_makes_what_is_missing_and_writes_a_page(
    made: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--scale", "cpu", "--seeds", "2", "--out", str(tmp_path), "--json", str(tmp_path / "e.json"))
    _main(monkeypatch, *words)
    assert sum(module == "train" for module, *_ in made) == 16
    assert sum("--untrained" in words for _, *words in made) == 6
    result = json.loads((tmp_path / "e.json").read_text())
    assert len(result["rows"]) == 18
    assert [row["method"] for row in result["rows"][-2:]] == ["untrained", "untrained"]
    assert [(line["method"], line["background"]) for line in result["summary"][:8]] == list(CONDITIONS)
    assert result["summary"][3]["gap_gain"] == [-0.3, 0.0]
    text = (tmp_path / "e.md").read_text()
    assert "| untrained |  | 40.0 ± 0.0 | 10.0 ± 0.0 |\n" in text and "20 labels" in text
    assert "**Not finished**" not in text
    assert f"    python -m tools.experiment --scale cpu --seeds 2 --json {tmp_path / 'e.json'}" in text
    assert "| MoCo-v2 | BG_Swaps | 50.0 ± 0.0 | +0.0 ± 0.0 | 30.0 ± 0.0 | -30.0 ± 0.0 | 2 |" in text
    assert "on 3000 photos" in text and "876 others" in text
    with Image.open(tmp_path / "e.png") as image:
        assert image.format == "PNG" and image.width > 800
    assert page(result, "e.png") == text  # of the result alone

    (tmp_path / "runs" / "byol-none-1" / "gap.json").unlink()
    del made[:]
    _main(monkeypatch, *words, "--page")
    assert not made
    partial = json.loads((tmp_path / "e.json").read_text())
    assert (partial["missing"], len(partial["rows"])) == ([["byol", "none", 1]], 17)
    assert (partial["command"], partial["summary"][4]["seeds"]) == (result["command"], 1)
    assert (
        "**Not finished**: 1 of 16 runs are missing (BYOL none, seed 1)." in (tmp_path / "e.md").read_text()
    )

    _main(monkeypatch, *words)
    [[module, *options]] = made
    assert module == "train.evaluate"
    assert f"--checkpoint={tmp_path / 'runs' / 'byol-none-1'}" in options
    assert json.loads((tmp_path / "e.json").read_text())["summary"] == result["summary"]

    (tmp_path / "corrupted").mkdir()  # the package is there now
    del made[:]
    _main(monkeypatch, *words)
    assert [words[1] for words in made] == ["robustness"] * 18
    assert "| untrained |  | 40.0 ± 0.0 | 10.0 ± 0.0 | 20.0 ± 0.0 |\n" in (tmp_path / "e.md").read_text()

    del made[:]
    _main(monkeypatch, *words, "--p", "0.5")
    trained = sorted(Path(word[6:]).name for module, *rest in made if module == "train" for word in rest[1:2])
    assert len(trained) == 10 and trained[0] == "byol-random-0-p0.5"  # those without background are there


def test_a_run_that_fails_ends_it_with_its_message(
    made: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(module: str, *words: str, **_: object) -> None:
        raise UserError("the loss is nan")

    monkeypatch.setattr(experiment, "start", fail)
    with pytest.raises(UserError, match="the loss is nan"):
        _main(monkeypatch, "--scale", "cpu", "--out", str(tmp_path))
    assert not (tmp_path / "experiment.json").exists()
    monkeypatch.setattr(experiment, "start", lambda *_, **__: None)  # as after SIGTERM
    with pytest.raises(UserError, match="training was stopped; the same command goes on"):
        _main(monkeypatch, "--scale", "cpu", "--out", str(tmp_path))
    assert not list(tmp_path.rglob("gap.json"))
    monkeypatch.setitem(experiment.PHOTOS, "moco_v2", "photos_byol.yaml")
    own = DEMO._replace(record={"source": {}})
    monkeypatch.setattr(experiment, "demo_set", lambda *_: own)
    with pytest.raises(UserError, match=r"recipe.yaml: a run by another recipe"):
        _main(monkeypatch, "--scale", "cpu", "--out", str(tmp_path))
    for words, message in {
        ("--seeds", "0"): "--seeds=0",
        ("--p", "0"): "--p=0",
        ("--detector", "rbd"): "--detector=rbd: only with --data",
        ("--page",): "no run is finished yet",
    }.items():
        with pytest.raises(UserError, match=message):
            _main(monkeypatch, *words, "--out", str(tmp_path / "new"))


def test_after_a_kill_the_same_command_goes_on(made: list[tuple[str, ...]], tmp_path: Path) -> None:
    """Of 8 runs with three probes, and three more of the first's network untrained: 35 programs."""
    words = ["--scale", "cpu", "--seeds", "1", "--out", str(tmp_path)]
    assert programs.run("tests.helpers.experiment", "9", *words).returncode == -signal.SIGKILL
    files = (tmp_path / "runs").glob("*/*.json")
    done = [path for path in files if path.name != "seconds.json"]  # one a program
    before = {path: path.stat().st_mtime_ns for path in done}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "draw", lambda *_: None)  # takes as long as all else
        _main(patch, *words)
    assert done and before == {path: path.stat().st_mtime_ns for path in done}
    assert len(made) == 35 - len(done)
    assert len(json.loads((tmp_path / "experiment.json").read_text())["rows"]) == 9


def test_published_pages_are_those_of_the_published_result() -> None:
    for path in (ROOT / "docs").glob("experiment*.json"):
        result = json.loads(path.read_text())
        assert path.with_suffix(".md").read_text() == page(result, f"{path.stem}.png")
        assert summary(result["rows"]) == result["summary"]
    result = json.loads((ROOT / "docs" / "experiment.json").read_text())
    assert len(result["rows"]) == 27
    readme = (ROOT / "README.md").read_text()
    for line in result["summary"][:-1]:
        background = "" if line["background"] == "none" else f" + {BACKGROUNDS[line['background']]}"
        cells = [f"{100 * mean:.1f} ± {100 * error:.1f}" for mean, error in (line["accuracy"], line["gap"])]
        assert f"| {NAMES[line['method']]}{background} | {' | '.join(cells)} |" in readme
