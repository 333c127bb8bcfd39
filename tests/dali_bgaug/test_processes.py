"""What a process does when the one that started it is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RANK = """
import os, time
from dali_bgaug.processes import follow_launcher
follow_launcher()
print(os.getpid(), flush=True)
time.sleep(60)
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _ends(pid: int, seconds: float) -> bool:
    """Whether a process ends by itself; it is gone after, in any case."""
    deadline = time.monotonic() + seconds
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if alive := _runs(pid):
        os.kill(pid, signal.SIGKILL)
    return not alive


@pytest.mark.parametrize("launched", [True, False])
def test_a_rank_ends_with_its_launcher(launched: bool) -> None:
    """Started by torchrun; a run started from a shell outlives it, as people expect of nohup."""
    environment = {key: value for key, value in os.environ.items() if key != "TORCHELASTIC_RUN_ID"}
    if launched:
        environment["TORCHELASTIC_RUN_ID"] = "job"
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, RANK], stdout=subprocess.PIPE, text=True, env=environment
    ) as launcher:
        rank = int(launcher.stdout.readline())
        launcher.kill()
        launcher.wait()
        assert _ends(rank, 10 if launched else 1) == launched


STUDY = """
import subprocess, sys
from dali_bgaug.processes import following
print(subprocess.run(following(["sh", "-c", "exit 3"])).returncode, flush=True)
subprocess.run(following(["sh", "-c", "echo $$; exec sleep 60"]))
"""


def test_a_program_follows_the_one_that_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", STUDY], stdout=subprocess.PIPE, text=True) as study:
        assert study.stdout.readline() == "3\n"
        program = int(study.stdout.readline())
        study.kill()
        study.wait()
        assert _ends(program, 10)
