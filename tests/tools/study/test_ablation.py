"""Ablations: rows that are recipes, what is kept of their runs, pages beside the paper's numbers."""

import json
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dali_bgaug.config import read_yaml, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_json
from tests.helpers import processes
from tests.helpers.runs import ROOT, read_recipe, use_tiny_net, write_recipe
from tests.train.test_recipes import ABLATIONS, rows_of
from tools.study import ablation
from tools.study.ablation import Ablation, recipes
from tools.study.runs import Programs
from train.check import check
from train.config import RunConfig
from train.evaluate.report.paper import PAPER
from train.evaluate.report.recipes import essence, traits_of

FILES = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))


@cache
def _read(path: Path) -> tuple[Ablation, dict[str, RunConfig]]:
    """A file, and the config of every row."""
    found = validate(Ablation, read_yaml(path), str(path))
    rows = recipes(found, path.parent / found.recipe, [])
    return found, {name: validate(RunConfig, values, name) for name, values in rows.items()}


@pytest.fixture(scope="module")
def known() -> list[tuple[dict, dict[str, tuple[float, str]]]]:
    """What a row of the paper is, and its numbers."""
    rows = [(read_recipe(ROOT / "configs" / f"{row.recipe}.yaml", *row.words), row.figures) for row in PAPER]
    return [(essence(traits_of(config)), figures) for config, figures in rows]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_rows_are_runs_with_the_papers_numbers(path: Path, known: list) -> None:
    found, configs = _read(path)
    assert len({config.identity() for config in configs.values()}) == len(found.rows) > 1
    for row in found.rows:
        own = essence(traits_of(configs[row.name]))
        expected = [figures["linear"] for traits, figures in known if traits == own and "linear" in figures]
        said = [(row.paper["linear"], row.source or found.source)] if row.paper else []
        assert said == expected, row.name
        assert set(row.paper) <= {"linear"}


def test_all_listed_ablations_are_rows_of_files() -> None:
    rows = {config.identity() for path in FILES for config in _read(path)[1].values()}
    listed = {
        " ".join(words): read_recipe(ROOT / "configs" / f"{words[0]}.yaml", *words[1:])
        for words, _ in ABLATIONS
    }
    assert [words for words, config in listed.items() if config.identity() not in rows] == []


def test_every_file_is_listed() -> None:
    assert sorted(row[0].strip("`") for row in rows_of("Running an ablation")) == [
        path.stem for path in FILES
    ]


SMALL = {
    "title": "Greys",
    "about": "Some.",
    "recipe": str(ROOT / "configs" / "moco_v2_demo.yaml"),
    "source": "Table 0",
    "overrides": ["data.background.kind=rm"],
    "seeds": 2,
    "rows": [
        {"name": "any grey", "paper": {"linear": 69.1}},
        {"name": "black", "overrides": {"data": {"background": {"grey": [0, 0]}}}},
    ],
}
TOP1 = {"any_grey-0": 0.5, "any_grey-1": 0.52, "black-0": 0.4, "black-1": 0.4}


class Study:
    """The command, on programs that only leave what they would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "greys.yaml"
        self.out = folder / "out"
        self.programs: list[tuple[str, str]] = []
        """Module and run of every program."""
        for name in ("shards", "val"):
            (folder / name).mkdir()
        self.write()

    def write(self, **values: Any) -> None:
        self.config.write_text(yaml.safe_dump(SMALL | values))

    def run(self, log: Path, module: str, *words: str) -> None:
        run = log.parent
        self.programs.append((module, run.name))
        assert read_yaml(run / "recipe.yaml")["seed"] == int(run.name[-1])
        if module == "train":
            write_json(run / "backbone.json", {"step": 9})
        else:
            write_json(run / "linear.json", {"top1": TOP1[run.name]})

    def __call__(self, monkeypatch: pytest.MonkeyPatch, words: str = "") -> None:
        places = ["--shards", str(self.folder / "shards"), "--test", str(self.folder / "val")]
        command = ["ablation", str(self.config), *places, "--out", str(self.out), *shlex.split(words)]
        monkeypatch.setattr(sys, "argv", command)
        ablation.main()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    made = Study(tmp_path)
    monkeypatch.setattr(Programs, "run", lambda _, *words: made.run(*words))
    monkeypatch.setattr(ablation, "ask", lambda module, job, asker: check(json.loads(job)))
    monkeypatch.setattr(ablation.signal, "signal", lambda *_: None)
    return made


def test_a_table_beside_the_papers(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study(monkeypatch, "epochs=3 data.background.grey=[0.2,0.3]")
    assert len(study.programs) == 8
    recipe = read_recipe(study.out / "black-1" / "recipe.yaml")
    assert (recipe.epochs, recipe.seed, recipe.data.seed, recipe.data.background.kind) == (3, 1, 1, "rm")
    assert recipe.data.background.grey == (0.0, 0.0)  # the row's own stays
    assert read_recipe(study.out / "any_grey-0" / "recipe.yaml").data.background.grey == (0.2, 0.3)
    assert recipe.data.shards == study.folder / "shards"
    result = json.loads((study.out / "ablation.json").read_text())
    assert result["summary"][0]["ours"] == {"linear": [0.51, 0.01]}
    assert len(result["rows"]) == 4
    text = (study.out / "ablation.md").read_text()
    assert "| any grey | 51.0 ± 1.0 | 69.1 | 2 |" in text
    assert "| black | 40.0 ± 0.0 | – | 2 |" in text
    assert "epochs=3 data.background.grey=[0.2,0.3] data.background.kind=rm" in " ".join(text.split())
    assert "* 69.1: Table 0" in text and "`data.background.grey=[0, 0]`" in text

    del study.programs[:]
    (study.out / "black-0" / "linear.json").unlink()
    study(monkeypatch, "epochs=3 data.background.grey=[0.2,0.3]")
    assert study.programs == [("train.evaluate", "black-0")]

    del study.programs[:]  # runs of another table that has the row, too
    other = study.folder / "other"
    other.mkdir()
    for run in ("black-0", "black-1"):
        (other / run).symlink_to(study.out / run)
    study(monkeypatch, f"epochs=3 data.background.grey=[0.2,0.3] --out {other}")
    assert {run for _, run in study.programs} == {"any_grey-0", "any_grey-1"}


def test_parts_make_the_table_together(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study(monkeypatch, "--part 2/2")  # of two rows with two seeds each
    assert {run for _, run in study.programs} == {"black-0", "black-1"}
    said = capsys.readouterr().out
    assert "any grey (seed 0, 1)" in said and "black (seed" not in said
    assert not (study.out / "ablation.json").exists()
    study(monkeypatch, "--part=1/2")
    assert len(study.programs) == 8
    command = json.loads((study.out / "ablation.json").read_text())["command"]
    assert command.startswith("python -m tools.ablation") and "--part" not in command
    (study.out / "ablation.json").unlink()
    study(monkeypatch, "--no-start")
    assert len(study.programs) == 8 and (study.out / "ablation.json").exists()


def test_what_was_made_otherwise_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study(monkeypatch)
    with pytest.raises(UserError, match=r"any_grey-0/recipe.yaml.* epochs was 10, now it is 4;"):
        study(monkeypatch, "epochs=4")
    with pytest.raises(UserError, match=r"any_grey-0/linear.yaml.*lr=3"):
        study(monkeypatch, "--probe optim.lr=3")
    assert len(study.programs) == 8


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        (
            [{"name": "a", "overrides": ["data.background.p_poss=1"]}, {"name": "b"}],
            "",
            r"a:\n.*p_poss: unknown",
        ),
        ([{"name": "a"}, {"name": "b"}], "", "rows 'a' and 'b' are the same run"),
        ([{"name": "a b"}, {"name": "a_b"}], "", "'a b', 'a_b' would have one folder"),
        ([{"name": "a", "paper": {"linear": 1.0}}], "", "row 'a' has a number of the paper without a source"),
        ([{"name": "a"}], "--evaluate background_gap", "--challenge: not given"),
        ([{"name": "a"}], "--evaluate robustness --set a=.", "robustness evaluates the classifier of linear"),
        ([{"name": "a"}], "--evaluate lineal", "no 'lineal'"),
        ([{"name": "a"}], "--class-map nowhere.json", "--class-map=.*nowhere.json: does not exist"),
        ([{"name": "a"}], "--seeds 0", "--seeds=0"),
    ],
)
def test_mistakes_are_found_before_anything_starts(
    study: Study, monkeypatch: pytest.MonkeyPatch, rows: list[dict], words: str, message: str
) -> None:
    study.write(rows=rows, source=None)
    with pytest.raises(UserError, match=message):
        study(monkeypatch, words)
    assert not study.programs and not study.out.exists()


def _program(module: str, words: tuple[str, ...]) -> None:
    """A program of `train`, with a small network."""
    use_tiny_net()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@pytest.mark.slow
def test_a_real_run(textured: Path, study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, textured, epochs=1)
    study.write(recipe=str(recipe), seeds=1, evaluate=["knn"], rows=[{"name": "any grey"}])
    monkeypatch.setattr(
        Programs, "run", lambda _, log, module, *words: processes.run(_program, module, words)
    )
    study(monkeypatch, f"--shards {textured} --test {textured}")
    [line] = json.loads((study.out / "ablation.json").read_text())["summary"]
    assert 0.2 < line["ours"]["knn"][0] <= 1
