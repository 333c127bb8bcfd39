"""The check of a GPU's host: what it runs, in which order, within its time; here without a GPU."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_json
from tools.bench import gpu_check, measure


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
        path = next((Path(word[7:]) for word in words if word.startswith("--json=")), None)
        if path:  # as the benchmark: it adds to what is there
            found = read_json(path, "")
            write_json(path, found | {"made": [*found.get("made", []), len(seen)]})
        return statuses.get(words[0], 0)

    monkeypatch.setattr(gpu_check.backend, "GetCUDADeviceCount", lambda: 1)
    monkeypatch.setattr(gpu_check, "_run", run)
    monkeypatch.setattr(measure, "place", lambda _: {"machine": {}})
    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: clock.now)
    return seen


def test_all_steps_run_even_if_a_test_fails(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _pretend(monkeypatch, {"pytest": 1}, 45)
    path = tmp_path / "gpu.json"
    path.write_text("of another time")
    monkeypatch.setattr(sys, "argv", ["gpu_check", f"--shards={textured}", f"--json={path}", "threads=8"])
    with pytest.raises(UserError, match="kernels, tests: did not pass"):
        gpu_check.main()
    pytest_ = f"pytest -v -n={min(8, os.cpu_count() or 1)}"
    common = "device=gpu batch_size=256 threads=8"
    assert seen == [
        pytest_,  # and tests/gpu/test_renderer.py
        pytest_,  # and the rest of tests/gpu
        f"tools.bench {common} --no-cold --no-scaling --no-torchvision --opponents= --minutes=0.625"
        " --batches=25",
        f"tools.bench {common} --profile --rounds=5 --batches=4",
        f"tools.bench {common} --rounds=3 --batches=20",  # and --train=configs/…
        f"tools.bench {common} --sweep hw_decoder_load=.65,.8,.9 prefetch=2,3 --rounds=3 --batches=4",
    ]
    assert read_json(path, "") == {
        "machine": {},
        "made": [3, 4, 5, 6],
        "check": {
            **dict.fromkeys(("kernels", "tests"), "failed: status 1"),
            **dict.fromkeys(("benchmark", "profile", "training", "sweep"), "passed"),
        },
    }


def test_each_step_has_a_limit_and_what_does_not_fit_is_left_out(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gpu.json"
    for seconds, passed, stopped in (
        (55, ["kernels", "tests", "benchmark", "profile", "training"], ["sweep"]),
        (65, ["kernels", "tests", "benchmark"], ["profile", "training"]),
        (100, [], ["kernels", "tests", "benchmark", "profile"]),
    ):
        path.write_text('{"machine": {}}')
        _pretend(monkeypatch, {}, seconds)
        ended = gpu_check.check(textured, path, [], minutes=5)
        found = {name: how.partition(":")[0] for name, how in ended.items()}
        ends = dict.fromkeys(passed, "passed") | dict.fromkeys(stopped, "stopped")
        assert found == dict.fromkeys(found, "left out") | ends
        assert len(found) == 6
        assert read_json(path, "")["check"] == ended


def test_a_step_that_is_stopped_leaves_what_earlier_ones_wrote(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real programs: the second adds to the file that the first wrote, and hangs."""
    path = tmp_path / "gpu.json"
    (tmp_path / "adds.py").write_text(
        "import json, sys, time\n"
        "found = json.load(open('gpu.json'))\n"
        "found |= {sys.argv[1]: sorted(found['check'])}\n"
        "found.pop('digest', None)\n"
        "json.dump(found, open('gpu.json', 'w')); time.sleep(60 * (sys.argv[1] == 'second'))\n"
    )
    path.write_text('{"machine": {}, "check": {}}')
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "LEAST_S", 0)
    plan = [gpu_check.Step(name, ["adds", name], 0.5) for name in ("first", "second", "third")]
    monkeypatch.setattr(gpu_check, "steps", lambda *_: plan)
    ended = gpu_check.check(textured, path, [], minutes=0.1)
    assert ended == {"first": "passed", "second": "stopped: no time", "third": "passed"}
    found = read_json(path, "")
    assert found == {
        "machine": {},
        "first": [],
        "second": ["first"],
        "third": ["first", "second"],
        "check": ended,
    }


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
