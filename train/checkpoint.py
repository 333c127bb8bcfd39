"""Checkpoints: written atomically, read without executing anything."""

import io
import re
from pathlib import Path
from typing import Any

import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic

VERSION = 1
KEYS = {"step", "config", "method", "optimiser", "ranks"}
_NAME = re.compile(r"step-(\d{8})\.pt$")


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step-{step:08d}.pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.search(path.name))


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint atomically, then delete all but the newest `keep`."""
    path = path_of(folder, step)
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a RuntimeError that does not say so
    torch.save({"version": VERSION, "step": step, **state}, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU: tensors, numbers and text only (`weights_only`).

    Raises:
        UserError: not a checkpoint of this version, damaged, or holding anything else.
    """
    mend = "delete it to resume from the one before, or start a new run with another --out"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason}); {mend}") from error
    if not isinstance(state, dict) or state.get("version") != VERSION or not set(state) >= KEYS:
        raise UserError(f"{path}: not a checkpoint of version {VERSION}; {mend}")
    return state
