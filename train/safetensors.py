"""Files of safetensors: named tensors, and nothing that is executed when they are read.

    8 bytes     length of the header, little-endian
    header      JSON: the dtype, shape and bytes of each tensor by its name; texts under `__metadata__`
    data        of all tensors, without gaps, little-endian

Reading and writing it is less than a dependency; the package of this name (0.8.0) writes the same bytes.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from dali_bgaug.files import atomic
from train.records import wrong_field

_DTYPES = {
    **{"U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I32": torch.int32, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64},
}
"""In the order of their data in a file, from the last: each starts at a multiple of its size."""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ORDER = {name: place for place, name in enumerate(reversed(_DTYPES))}
_LONGEST_HEADER = 100_000_000  # the package's, too


class _Entry(BaseModel):
    """What a header says of a tensor."""

    model_config = ConfigDict(extra="forbid", strict=True)
    dtype: Literal[tuple(_DTYPES)]
    shape: list[NonNegativeInt]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


class _Header(BaseModel):
    """A header, with a tensor a field."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, _Entry]
    metadata: Annotated[dict[str, str], Field(alias="__metadata__")] = {}


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors, and texts about them, atomically."""
    rows = sorted(tensors.items(), key=lambda row: (_ORDER[_NAMES[row[1].dtype]], row[0]))
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, value in rows:
        start, end = end, end + value.nbytes
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, value in rows:
            file.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file to the CPU.

    Raises:
        ValueError: damaged, cut short, or another kind of file; says what is wrong.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LONGEST_HEADER, path.stat().st_size - 8):
            raise ValueError(f"its header would be of {length} bytes, more than there are")
        try:
            entries = _Header.model_validate_json(file.read(length)).__pydantic_extra__
        except ValidationError as error:
            raise ValueError(f"its header: {wrong_field(error)}") from error
        data, end, tensors = file.read(), 0, {}
    for name, entry in sorted(entries.items(), key=lambda row: row[1].data_offsets):
        dtype, (start, stop) = _DTYPES[entry.dtype], entry.data_offsets
        if start != end or stop - start != math.prod(entry.shape) * dtype.itemsize or stop > len(data):
            raise ValueError(f"bytes {start} to {stop} are not those of {name}, {entry.dtype} {entry.shape}")
        end = stop
        flat = torch.frombuffer(bytearray(data[start:stop]), dtype=dtype) if stop > start else torch.empty(0)
        tensors[name] = flat.to(dtype).reshape(entry.shape)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes at its end belong to no tensor")
    return tensors
