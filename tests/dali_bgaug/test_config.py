from pathlib import Path

import pytest

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import UserError
from pipelines import LoaderConfig


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_extends_merges_mapping_by_mapping(tmp_path: Path) -> None:
    _write(tmp_path / "base.yaml", "a: {x: 1, y: [1, 2]}\nb: 3\n")
    child = _write(tmp_path / "child.yaml", "extends: base.yaml\na: {y: [5]}\n")
    assert read_yaml(child) == {"a": {"x": 1, "y": [5]}, "b": 3}


def test_override_reads_values_as_yaml() -> None:
    words = ["a.b=1e-3", "a.c=true", "d=[1, 2]", "e=text"]
    assert override({"a": {"b": 2, "z": 0}}, words) == {
        "a": {"b": 0.001, "z": 0, "c": True},
        "d": [1, 2],
        "e": "text",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shards: x\nbatch_sise: 4\n", ["batch_sise", "unknown key"]),
        ("shards: x\nbatch_size: '4'\n", ["batch_size='4'", "integer"]),
        ("shards: x\ncrop: {scale: [0.5, 0.2]}\n", ["scale=[0.5, 0.2]", "increasing"]),
        ("shards: x\nbackground: {kind: swap}\n", ["background.kind='swap'", "'swaps'"]),
        ("batch_size: 4\n", ["shards", "missing"]),
    ],
)
def test_errors_name_file_key_and_value(tmp_path: Path, text: str, words: list[str]) -> None:
    path = _write(tmp_path / "c.yaml", text)
    with pytest.raises(UserError) as error:
        validate(LoaderConfig, read_yaml(path), str(path))
    for word in ["c.yaml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n", "mapping"),
        ("extends: 3\n", "extends=3"),
        ("extends: c.yaml\n", "circle"),
        ("extends: missing.yaml\n", "missing.yaml"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, word: str) -> None:
    path = _write(tmp_path / "c.yaml", text)
    with pytest.raises(UserError, match=word):
        read_yaml(path)


def test_a_word_without_equals_is_an_error() -> None:
    with pytest.raises(UserError, match="key=value"):
        override({}, ["batch_size"])
