"""The check of a GPU's host: what it runs, in which order, within its time; here without a GPU."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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


def _pretend(monkeypatch: pytest.MonkeyPatch, statuses: dict[str, int], seconds: float) -> list[str]:
    """A GPU, programs that take so many seconds each and end so, and a clock."""
    seen: list[str] = []
    clock = SimpleNamespace(now=0.0)

    def run(words: list[str], limit_s: float) -> int | None:
        seen.append(" ".join(word for word in words if "/" not in word))
        clock.now += min(seconds, limit_s)
        if seconds > limit_s:
            return None
        path = next((word.partition("=")[2] for word in words if word.startswith("--json=")), None)
        if path:
            Path(path).write_text(json.dumps({"machine": {}}))
        return statuses.get(words[0], 0)

    monkeypatch.setattr(gpu_check.backend, "GetCUDADeviceCount", lambda: 1)
    monkeypatch.setattr(gpu_check, "_run", run)
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
    common = "device=gpu batch_size=256 threads=8"
    assert seen == [
        "pytest",
        f"tools.bench {common} --opponents=dali --minutes=2.0",
        f"tools.bench {common} --sweep --rounds=5",
        f"tools.bench {common} --rounds=3 --batches=20",  # and --train=configs/…
        f"tools.bench {common} --profile --rounds=5",
        f"tools.bench {common} --startup",
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
        "sweep": "stopped: no time",
        **dict.fromkeys(("training", "profile", "startup"), "left out: no time"),
    }
    path = tmp_path / "other.json"
    _pretend(monkeypatch, {}, 250)
    assert gpu_check.check(textured, path, [], minutes=8) == {
        "tests": "passed",
        "benchmark": "stopped: no time",
        **dict.fromkeys(("sweep", "training", "profile", "startup"), "left out: no time"),
    }
    assert not path.exists()


def test_what_is_stopped_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('pid', 'w').write(str(child.pid)); time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    assert gpu_check._run(["slow"], 2) is None
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or " Z " in state.read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child's child is still alive")
