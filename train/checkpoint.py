"""Files of checkpoints: written atomically, read without executing anything.

checkpoints/step-00001000.pt    after so many steps
checkpoints/latest.pt           leads to the newest: a link, or its name where there are no links
"""

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from pydantic import ValidationError

from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic, follow, write_pointer
from train import safetensors
from train.records import CheckpointRecord, DetectRecord, SaliencyRecord, wrong_field

LATEST = "latest.pt"
_REMEDY = "delete it to resume from the one before, or start a new run with another --out"
Record = TypeVar("Record", CheckpointRecord, SaliencyRecord, DetectRecord)
_NAME = re.compile(r"step-(\d{8})\.pt$")


def path_of(folder: Path, step: int) -> Path:
    """The path of the checkpoint after `step` steps."""
    return folder / f"step-{step:08d}.pt"


def step_of(path: Path) -> int:
    """The steps done when a checkpoint was written."""
    return int(_NAME.search(path.name).group(1))


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.search(path.name))


def save(path: Path, values: dict[str, Any]) -> None:
    """Write a file of torch.save atomically."""
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a RuntimeError that does not say so
    torch.save(values, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def write(folder: Path, record: CheckpointRecord | SaliencyRecord | DetectRecord) -> Path:
    """Write a checkpoint, and point `latest.pt` at it; returns its path."""
    path = path_of(folder, record.step)
    save(path, dict(record))
    write_pointer(folder / LATEST, path.name)
    return path


def read(path: Path, remedy: str = "give another file") -> dict[str, Any]:
    """Read a file of torch.save to the CPU: tensors, numbers and text only (`weights_only`).

    Or NAME.safetensors, which holds tensors alone. torch does not look at the checksums that it writes; this
    does.

    remedy: what an error says is to be done.

    Raises:
        UserError: no such file, damaged, or holding anything else.
    """
    path = follow(path, _NAME)
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, no' if path.is_dir() else 'no such'} checkpoint")
    if path.suffix == ".safetensors":
        try:
            return safetensors.read(path)
        except ValueError as error:
            kind = _stray(_start(path)) or f"damaged, or no safetensors: {error}"
            raise UserError(f"{path}: {kind}; {remedy}") from error
    if damage := _damage(path):
        raise UserError(f"{path}: {damage}; {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what cannot be read anyhow
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        raise UserError(f"{path}: cannot be read as a checkpoint: {_kind(path)}; {remedy}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds no checkpoint but a {type(state).__name__}; {remedy}")
    return state


def _damage(path: Path) -> str | None:
    """The damage of a file that torch.save has written; None if there is none, or it is of another kind."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception as error:  # whatever a damaged directory leads to
        return f"damaged: the list of its content cannot be read ({type(error).__name__})"
    return f"damaged: the checksum of {wrong} in it is wrong" if wrong else None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _stray(start: bytes) -> str | None:
    """The kind of a file without weights, by how it starts; None of others."""
    if not start:
        return "it is empty"
    if start.lstrip()[:1] == b"<":
        return "it is a page of HTML or XML, as a failed download leaves it"
    return next((kind for magic, kind in _STRAYS.items() if start.startswith(magic)), None)


def _kind(path: Path) -> str:
    """The kind of a file that torch does not load."""
    start = _start(path)
    if kind := _stray(start):
        return kind
    if start.startswith((b"PK", b"\x80")):
        return _PICKLE
    if start[8:9] == b"{":
        return "it looks like safetensors; end its name in .safetensors"
    return "it is damaged, cut short, or no file of torch.save at all"


_PICKLE = (
    "it holds other objects than tensors (a whole pickled model?), and reading them could run any program; "
    "where it comes from, save the model's state_dict() alone"
)
_STRAYS = {
    b"\x89HDF": "it is an HDF5 file",
    b"\x1f\x8b": "it is a gzip archive; unpack it first",
    b"version https://git-lfs": "it is a pointer of Git LFS; fetch the file itself (git lfs pull)",
}


def load(path: Path, kind: type[Record] = CheckpointRecord) -> Record:
    """Read a checkpoint of this version; UserError as `read`, and for anything else."""
    try:
        return kind.model_validate(read(path, _REMEDY))
    except ValidationError as error:
        version = get_args(kind.model_fields["version"].annotation)[0]
        raise UserError(
            f"{path}: not a checkpoint of version {version} ({wrong_field(error)}); {_REMEDY}"
        ) from error


def load_newest(folder: Path, kind: type[Record] = CheckpointRecord) -> tuple[Record | None, list[str]]:
    """The newest checkpoint of a run that is not damaged, if any, and what is wrong with those after it."""
    problems = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load(path, kind), problems
        except UserError as error:
            problems.append(str(error))
    return None, problems
