"""The GPU renderer without a GPU: interpreted against the CPU's, and compiled for GPUs that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.views.gpu import GpuRenderer
from tests.helpers.compiling import compile_kernels

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_interpreted_kernels_make_what_the_cpu_makes() -> None:
    """`interpreted.py`, in a process whose Triton interprets."""
    command = [sys.executable, "-m", "pytest", "tests/dali_bgaug/views/interpreted.py"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stdout[-6000:]


@pytest.mark.parametrize("architecture", [80, 90])
def test_every_kernel_compiles_and_spills_nothing(architecture: int) -> None:
    """At views of 224 pixels and masks of 256; for the second architecture the fullest variant of each, from
    which the others only leave something out."""
    found = compile_kernels(architecture, fullest=architecture == 90)
    assert {name.split()[0] for name in found} == {
        "choose_crop_boxes",
        "resample",
        "colour",
        "blur_rows",
        "finish",
        "copy",
    }
    for name, resources in found.items():
        assert resources["spilled"] == 0, name
        # Two blocks of 128 threads at least share a processor's 65 536 registers.
        assert resources["registers"] <= 128, name


def test_no_c_compiler_is_said_when_the_renderer_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=r"need a C compiler.*install gcc or clang, or name one in CC"):
        GpuRenderer(torch.device("cuda", 0))
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(UserError, match="need a C compiler"):
        GpuRenderer(torch.device("cuda", 0))
