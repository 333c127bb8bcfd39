"""The file of results: which sets stand, and that nobody's results are replaced unasked."""

import json
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_json
from train.evaluate.robustness.results import Results

HEAD = {"protocol": "robustness", "network": {"name": "a", "sha256": "1" * 64}, "orientation": "ignored"}
KEY = {"protocol": "imagenet-a", "files_sha256": "f" * 64, "shown": {"crop": 224, "resize": 256}}
RESULT = KEY | {
    "value": 0.5,
    "metric": "top-1",
    "photos": 3,
    "unread": [],
    "folder": "/x/a",
    "found": {"photos": 3},
}


def test_a_finished_set_stands(tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    first = Results(path, HEAD)
    assert first.finished(["imagenet-a"], KEY) is None
    first.keep(["imagenet-a"], RESULT)
    first.write()
    second = Results(path, HEAD)
    assert second.finished(["imagenet-a"], KEY) == RESULT
    assert second.finished(["imagenet-a"], KEY | {"found": {"photos": 3}}) == RESULT
    assert second.finished(["imagenet-r"], KEY) is None
    assert Results(path, HEAD, again=True).finished(["imagenet-a"], KEY) is None
    assert json.loads(path.read_text())["sets"] == {"imagenet-a": RESULT}


@pytest.mark.parametrize(
    "other",
    [
        {"files_sha256": "e" * 64},
        {"protocol": "folders"},
        {"shown": {"crop": 224, "resize": 224}},
        {"found": {"photos": 2}},
        {"options": {"epsilon": 4.0}},
    ],
)
def test_a_set_measured_otherwise_does_not(tmp_path: Path, other: dict[str, Any]) -> None:
    results = Results(tmp_path / "robustness.json", HEAD)
    results.keep(["imagenet-a"], RESULT)
    assert results.finished(["imagenet-a"], KEY | other) is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"network": {"name": "a", "sha256": "2" * 64}}, "weights was 1111"),
        ({"orientation": "applied"}, "orientation was ignored, now it is applied"),
    ],
)
def test_results_of_others_are_not_replaced(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    path = tmp_path / "robustness.json"
    first = Results(path, HEAD)
    first.keep(["imagenet-a"], RESULT)
    first.write()
    with pytest.raises(UserError, match=rf"robustness.json: holds other results: {message}.*--json.*--again"):
        Results(path, HEAD | other)
    assert Results(path, HEAD | other, again=True).sets == {}


@pytest.mark.parametrize("again", [False, True])
def test_other_files_are_not_replaced(tmp_path: Path, again: bool) -> None:
    path = tmp_path / "linear.json"
    write_json(path, {"protocol": "linear", "network": HEAD["network"], "orientation": "ignored"})
    with pytest.raises(UserError, match=r"linear.json: holds no results of robustness; .*--json"):
        Results(path, HEAD, again)


def test_parts_of_a_set(tmp_path: Path) -> None:
    """Each stands by itself; matched-frequency's is the set's value, whenever it was measured."""
    results = Results(tmp_path / "robustness.json", HEAD)
    for part, value in (("top-images", 0.7), ("matched-frequency", 0.6)):
        result = RESULT | {"value": value, "folder": f"/x/v2/{part}", "unread": [f"{part[0]}.jpg"]}
        results.keep(["imagenet-v2", part], result)
    results.write()
    again = Results(results.path, HEAD)
    found = again.sets["imagenet-v2"]
    assert (found["value"], found["metric"], found["photos"], found["folder"]) == (0.6, "top-1", 6, "/x/v2")
    assert found["unread"] == ["top-images/t.jpg", "matched-frequency/m.jpg"]
    assert again.finished(["imagenet-v2", "top-images"], KEY)["value"] == 0.7
    assert again.finished(["imagenet-v2", "threshold0.7"], KEY) is None
