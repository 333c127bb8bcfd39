"""What a process does when the one that started it is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT

RANK = """
import os, time
from dali_bgaug.processes import follow_launcher
follow_launcher()
print(os.getpid(), flush=True)
time.sleep(60)
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
TOOL = """
import sys, pathlib, tools.cli
pathlib.Path("started.py").write_text(sys.argv[1])
tools.cli.start("started")
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("launched", "by"), [(True, LAUNCHER), (True, TOOL), (False, LAUNCHER)])
def test_a_rank_ends_with_its_launcher(launched: bool, by: str, tmp_path: Path) -> None:
    """Started by torchrun, or a tool; a run started from a shell outlives it, as people expect of nohup."""
    environment = {key: value for key, value in os.environ.items() if key != "TORCHELASTIC_RUN_ID"}
    environment["PYTHONPATH"] = str(ROOT)
    if launched and by == LAUNCHER:
        environment["TORCHELASTIC_RUN_ID"] = "job"
    with subprocess.Popen(
        [sys.executable, "-c", by, RANK], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as launcher:
        rank = int(launcher.stdout.readline())
        launcher.kill()
        launcher.wait()
        deadline = time.monotonic() + (10 if launched else 1)
        while _runs(rank) and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            assert _runs(rank) != launched
        finally:
            if _runs(rank):
                os.kill(rank, signal.SIGKILL)
