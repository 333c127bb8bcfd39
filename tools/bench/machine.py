"""The machine and software that a figure was measured on."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dali_bgaug import __version__


def machine(device_id: int | None) -> dict[str, Any]:
    """Device, processor, CPUs this process may use, versions, and today's date."""
    return {
        "device": "cpu" if device_id is None else torch.cuda.get_device_name(device_id),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "dali_bgaug": __version__,
        "dali": version("nvidia-dali-cuda120"),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "date": time.strftime("%Y-%m-%d"),
    }


def describe(place: dict[str, Any]) -> str:
    """What `machine` found, in words."""
    versions = f"Python {place['python']}, torch {place['torch']}, DALI {place['dali']}"
    return f"{place['device']}, {place['cpus']} CPUs, {versions}, {place['date']}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
