"""What a run goes on from, or that it may begin: one folder holds one run."""

import sys
from pathlib import Path
from typing import Any, Literal

from dali_bgaug.errors import UserError
from train import checkpoint, distributed
from train.config import RunConfig

Resume = bool | Literal["auto"]
"""Whether to go on from a run's last checkpoint; "auto": if there is one, also past damaged ones."""


def find_state(config: RunConfig, out: Path, resume: Resume) -> dict[str, Any] | None:
    """The checkpoint that a run in `out` goes on from, or None where it begins; every rank must call this.

    Raises:
        UserError: there is a run and it is not to be resumed, or there is none and it is; it was made with
            another config; no checkpoint can be read.
    """
    folder, main = out / "checkpoints", distributed.rank() == 0
    # One rank looks for all: a network file system need not show every machine the same files yet.
    found = distributed.broadcast(checkpoint.list_checkpoints(folder)[-1:])
    if found and not resume:
        raise UserError(
            f"--out={out}: holds a run already; continue it with --resume, or choose another --out"
        )
    if resume is True and not found:
        raise UserError(f"--resume: {folder} has no checkpoint; start the run without --resume")
    if not found:
        if problem := distributed.broadcast(_in_the_way(config, out) if main else ""):
            raise UserError(f"{problem}; choose another --out, or delete that folder")
        return None
    state, newest, problems = None, found[0], []
    if resume == "auto":  # nobody is there to delete a damaged one
        if main:
            state, problems = checkpoint.load_newest(folder)
            newest = state and checkpoint.path_of(folder, state["step"])
        newest, problems = distributed.broadcast((newest, problems))
        if newest is None:
            raise UserError("\n  ".join(["--auto-resume: no checkpoint can be read:", *problems]))
        if main and problems:
            print("\n  ".join([f"going on from {newest}:", *problems]), file=sys.stderr)
    state = state or checkpoint.load(newest)
    if changed := checkpoint.difference(state["identity"], config.identity()):
        raise UserError(
            f"{newest}: was made with another config: {changed}; resume with "
            f"the same (it is in {out / 'config.json'}), or choose another --out"
        )
    return state


def _in_the_way(config: RunConfig, out: Path) -> str:
    """Why a run without checkpoints may not begin here: another's folder, or that of one that has ended."""
    before, weights = out / "config.json", out / "backbone.pt"
    if weights.exists():
        return f"{weights}: a run has ended here, and its checkpoints are gone"
    if not before.exists():
        return ""
    try:
        old = RunConfig.model_validate_json(before.read_bytes())
    except ValueError:
        return f"{before}: a run with another config began here: it cannot be read"
    changed = checkpoint.difference(old.identity(), config.identity())
    if not changed and old.init != config.init:
        changed = f"init was {old.init}, now it is {config.init}"
    return changed and f"{before}: a run with another config began here: {changed}"
