"""docs/recipes.md: its list of files is complete and true, and each line of ablations resolves to what it
states."""

import re
import shlex
from itertools import product
from typing import Any

import pytest

from dali_bgaug.config import override
from tests.helpers.runs import ROOT, read_recipe

CONFIGS = ROOT / "configs"
TEXT = (ROOT / "docs" / "recipes.md").read_text()


def rows_of(section: str) -> list[list[str]]:
    """The cells of a section's table."""
    part = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def _expand(name: str) -> list[str]:
    """`a_{b,c}` -> a_b, a_c."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(choice) for choice in product(*parts)]


FILES = [(name, row[1:]) for row in rows_of("The files") for name in _expand(row[0].strip("`"))]
ABLATIONS = [(shlex.split(row[3].strip("`")), shlex.split(row[4].strip("`"))) for row in rows_of("Ablations")]


def test_every_file_is_listed_once() -> None:
    shared = {"base", "small", "demo"}
    assert sorted(name for name, _ in FILES) == sorted({p.stem for p in CONFIGS.glob("*.yaml")} - shared)
    evaluate = {
        name
        for pattern in re.findall(r"`((?:linear|finetune)_[^`]*)`", TEXT.partition("\n## Ablations\n")[0])
        for name in _expand(pattern)
    }
    assert evaluate == {path.stem for path in (CONFIGS / "evaluate").glob("*.yaml")}


@pytest.mark.parametrize(("name", "row"), FILES, ids=[name for name, _ in FILES])
def test_a_file_says_what_the_list_says(name: str, row: list[str]) -> None:
    epochs, batch, p_pos, fg_min, notes = row
    config = read_recipe(CONFIGS / f"{name}.yaml")
    data = config.data
    assert (config.epochs, data.batch_size) == (int(epochs), int(batch))
    view = next(iter(data.views.values()))
    assert view.crop.fg_min == float(fg_min)
    assert (data.background.kind == "none") == (p_pos == "")
    if p_pos:
        assert data.background.p_pos == float(p_pos)
    if found := re.search(r"p_neg (\S+)", notes):
        assert (data.background.kind, data.background.p_neg) == ("swaps", float(found[1]))


def _leaves(values: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {name: values}
    parts = [_leaves(value, f"{name}.{key}" if name else key) for key, value in values.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}


@pytest.mark.parametrize(("words", "stated"), ABLATIONS, ids=[" ".join(words) for words, _ in ABLATIONS])
def test_an_ablation_is_what_it_states(words: list[str], stated: list[str]) -> None:
    recipe = CONFIGS / f"{words[0]}.yaml"
    config = read_recipe(recipe, *words[1:]).model_dump(mode="json")
    if words[1:]:
        assert config != read_recipe(recipe).model_dump(mode="json")
    expected = _leaves(override({}, stated))
    own = {key: key if key.split(".")[0] in config else f"data.{key}" for key in expected}
    found = _leaves(config)
    assert {key: found[own[key]] for key in expected} == expected


def test_no_ablation_comes_twice() -> None:
    words = [" ".join(words) for words, _ in ABLATIONS]
    assert len(words) == len(set(words)) > 50
