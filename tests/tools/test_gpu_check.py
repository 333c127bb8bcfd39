"""The check of a GPU's host: what it runs, in which order, within its time; here without a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from tools import gpu_check


def test_without_a_gpu_it_says_so_and_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.gpu_check", f"--json={tmp_path / 'gpu.json'}"]
    # From a bare directory of files: nothing is found by its installation.
    environment = {"PYTHONPATH": f"{gpu_check.ROOT}", "PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "no GPU here: nothing to check\n")


def _pretend(monkeypatch: pytest.MonkeyPatch, statuses: dict[str, int | None], seconds: float) -> list[str]:
    """A GPU, programs that take so many seconds each and end so (None: are stopped), and a clock."""
    seen: list[str] = []
    clock = SimpleNamespace(now=0.0)

    def run(command: list[str], timeout: float, **_: Any) -> SimpleNamespace:
        words = [word for word in command if word.startswith("--") and "/" not in word]
        seen.append(command[2] + " ".join(["", *words]))
        clock.now += min(seconds, timeout)
        path = next((word.partition("=")[2] for word in command if word.startswith("--json=")), None)
        if path:
            Path(path).write_text(json.dumps({"machine": {}}))
        status = statuses.get(command[2], 0)
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(gpu_check.backend, "GetCUDADeviceCount", lambda: 1)
    monkeypatch.setattr(gpu_check.subprocess, "run", run)
    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: clock.now)
    return seen


def test_all_steps_run_even_if_a_test_fails(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _pretend(monkeypatch, {"pytest": 1}, 70)
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check", f"--shards={textured}", f"--json={path}", "threads=8"])
    with pytest.raises(UserError, match="tests: did not pass"):
        gpu_check.main()
    assert seen == [
        "pytest",
        "tools.bench --rounds=5",
        "tools.bench --sweep --rounds=3",
        "tools.bench --rounds=3 --batches=20",  # and --train=configs/…
        "tools.bench --profile --rounds=3",
        "tools.bench --startup",
    ]
    assert json.loads(path.read_text()) == {
        "machine": {},
        "check": {
            "tests": "failed: status 1",
            **dict.fromkeys(("benchmark", "sweep", "training", "profile", "startup"), "passed"),
        },
    }


def test_what_does_not_fit_into_the_time_is_left_out(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, {}, 200)
    assert gpu_check.check(textured, tmp_path / "gpu.json", [], minutes=8) == {
        "tests": "passed",
        "benchmark": "passed",
        "sweep": "passed",
        **dict.fromkeys(("training", "profile", "startup"), "left out: no time"),
    }
    _pretend(monkeypatch, {"tools.bench": None}, 1000)
    assert gpu_check.check(textured, tmp_path / "gpu.json", [], minutes=1) == {
        "tests": "passed",
        **dict.fromkeys(("benchmark", "sweep", "training", "profile", "startup"), "left out: no time"),
    }
