"""What the methods learnt: which runs are made, kept and summed up. Training itself is tested in
tests/train."""

import json
import sys
from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tools.study import learning


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Runs without training: seed s of a method gains 10 + s points."""
    runs = []

    def run(method: str, seed: int, folder: Path, out: Path) -> dict:
        runs.append((method, seed))
        return {"trained": 0.7 + seed / 100, "untrained": 0.6, "seconds": 60, "steps": 310, "loss": 1.5}

    monkeypatch.setattr(learning, "_pack", lambda out, workers: None)
    monkeypatch.setattr(learning, "_run", run)
    return runs


def test_the_program_makes_what_is_missing_and_sums_up(
    made: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    words = [
        "learning",
        "--methods",
        "byol,swav",
        "--seeds",
        "3",
        "--out",
        str(tmp_path),
        "--json",
        str(path),
    ]
    monkeypatch.setattr(sys, "argv", words)
    learning.main()
    assert made == [(method, seed) for method in ("byol", "swav") for seed in range(3)]
    result = json.loads(path.read_text())
    assert result["methods"]["swav"] == {
        **{"seeds": 3, "untrained": 0.6, "trained": 0.71, "gain": 0.11, "standard_error": 0.0058},
        **{"least_gain": 0.1, "seconds": 60},
    }
    assert "| byol | 3 | 60.0 % | 71.0 % | 11.0 | 0.6 | 10.0 | 60 |" in path.with_suffix(".md").read_text()

    (tmp_path / "swav-1" / "knn.json").unlink()
    learning.main()
    assert made[6:] == [("swav", 1)]


def test_one_seed_has_no_standard_error(made: list[tuple[str, int]], tmp_path: Path) -> None:
    result = learning.measure(["byol"], 1, tmp_path, 1)
    assert result["methods"]["byol"]["standard_error"] is None
    assert "| 10.0 |  | 10.0 |" in learning.page(result, "")


@pytest.mark.parametrize(
    ("words", "message"), [(["--methods", "simclr"], "no simclr; there are"), (["--seeds", "0"], "--seeds=0")]
)
def test_bad_options(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["learning", *words])
    with pytest.raises(UserError, match=message):
        learning.main()


def test_a_run_trains_and_is_judged_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = []

    def start(module: str, *words: str, **_: object) -> None:
        programs.append((module, words[0]))
        if module == "train":
            card = {"step": 310, "metrics": {"loss": 1.23456}}
            (tmp_path / "backbone.json").write_text(json.dumps(card))
        else:
            path = Path(next(word for word in words if word.startswith("--json=")).removeprefix("--json="))
            path.write_text(json.dumps({"top1": 0.2 if "--untrained" in words else 0.7}))

    monkeypatch.setattr(learning, "start", start)
    found = learning._run("byol", 1, tmp_path, tmp_path / "out")
    assert programs == [("train", "--config"), ("train.evaluate", "knn"), ("train.evaluate", "knn")]
    assert found == {"trained": 0.7, "untrained": 0.2, "seconds": 0, "steps": 310, "loss": 1.2346}
