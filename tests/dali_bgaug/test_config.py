import itertools
import time
from pathlib import Path

import pytest
from pydantic import Field

from dali_bgaug.config import Options, load_yaml, override, read_yaml, validate
from dali_bgaug.errors import UserError
from pipelines import LoaderConfig


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_extends_merges_mapping_by_mapping(tmp_path: Path) -> None:
    _write(tmp_path / "base.yaml", "a: {x: 1, y: [1, 2]}\nb: 3\n")
    child = _write(tmp_path / "child.yaml", "extends: base.yaml\na: {y: [5]}\n")
    assert read_yaml(child) == {"a": {"x": 1, "y": [5]}, "b": 3}


def test_extending_several_files_lays_each_down_once(tmp_path: Path) -> None:
    """`long` and `rm` both extend `base`: base, long, rm, child. rm's base does not undo `long`."""
    _write(tmp_path / "base.yaml", "epochs: 100\nlr: 1\nkind: none\n")
    _write(tmp_path / "long.yaml", "extends: base.yaml\nepochs: 800\n")
    _write(tmp_path / "rm.yaml", "extends: base.yaml\nkind: rm\nlr: 2\n")
    child = _write(tmp_path / "child.yaml", "extends: [long.yaml, rm.yaml]\n")
    assert read_yaml(child) == {"epochs": 800, "lr": 2, "kind": "rm"}
    later = _write(tmp_path / "later.yaml", "extends: [rm.yaml, long.yaml, base.yaml]\nlr: 3\n")
    assert read_yaml(later) == {"epochs": 800, "lr": 3, "kind": "rm"}


def test_a_wrong_value_in_a_section_is_named_without_the_section(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        validate(LoaderConfig, {"shards": "x", "background": {"kind": "rm", "grey": [0.9, 0.1]}}, "c.yaml")
    assert "background: grey=[0.9, 0.1] must be two increasing numbers" in str(error.value)


def test_override_reads_values_as_yaml() -> None:
    words = ["a.b=1e-3", "a.c=true", "d=[1, 2]", "e=text"]
    assert override({"a": {"b": 2, "z": 0}}, words) == {
        "a": {"b": 0.001, "z": 0, "c": True},
        "d": [1, 2],
        "e": "text",
    }


LAUGHS = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS.encode(), "line 2: an alias"),
        (b"a: &a {b: *a}\n", "line 1: an alias"),
        (b"a: " + b"[" * 1000 + b"]" * 1000, "line 1: nested more than 20 deep"),
        (b"a: 1\nb: " + b"{c: " * 30 + b"1" + b"}" * 30, "line 2: nested more than 20 deep"),
        ("a: 1\nname: Müller\n".encode("latin-1"), "byte 0xfc in line 2 is not UTF-8"),
        (b"a: [1, 2\n", "not valid YAML"),
        (b"\0", "not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_yaml_that_is_no_config_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(UserError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "word",
    [
        *(
            "crop.size=10**6",
            "crop.size=1000000",
            "photometric.blur_sigma=[0.1, 1e30]",
            "batch_size=1000000000000",
        ),
        *("photometric.contrast=1e30", "background.negatives=1000000", "shuffle_buffer=1000000000000"),
        *("prefetch=100000", "threads=100000", "resize=1000000"),
    ],
)
def test_what_no_machine_can_hold_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=word.partition("=")[0].rpartition(".")[2]):
        validate(LoaderConfig, override({"shards": "x"}, [word]), "the words")


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
        ("extends: [base.yaml, 3]\n", "or a list"),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("-3", -3), ("+4", 4), ("0.1", 0.1), ("0", 0)),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None)),
        *((word, word) for word in ("no", "on", "1:30", "007", "0x10", "1_000", "2024-01-01", "inf", "a-b")),
        *(("[1, 2e1]", [1, 20.0]), ("'1'", "1"), ('"/x #3"', "/x #3")),
    ],
)
def test_plain_words_mean_the_same_in_files_and_on_command_lines(text: str, value: object) -> None:
    [there], here = load_yaml(f"a: {text}\n", "file").values(), override({}, [f"a={text}"])["a"]
    assert (there, here) == (value, value)
    assert isinstance(here, type(value))


@pytest.mark.parametrize("text", ["/x/run #3", "a: b", "*x", "!t", "&a", "- 1", "x, y", "%x", "@x", "`x`"])
def test_a_word_is_no_document(text: str) -> None:
    assert override({}, [f"a.b={text}"]) == {"a": {"b": text}}


def test_a_comment_in_a_word_is_an_error() -> None:
    with pytest.raises(UserError, match=r"'a=\[1\] #2': ends in a comment"):
        override({}, ["a=[1] #2"])


class _Places(Options):
    place: Path = Field(strict=False)
    number: float = 0.0


@pytest.mark.parametrize("name", ["2024", "1e5", "no", "2024_01", "1.50", "007", "run #3"])
def test_folders_may_be_called_like_numbers(name: str) -> None:
    assert validate(_Places, override({}, [f"place={name}", "number=1e5"]), "x") == _Places(
        place=Path(name), number=1e5
    )
