"""Record access of the Triton kernels: fields of the table by their addresses and offsets."""

import numpy as np
import triton
import triton.language as tl

from dali_bgaug.views.table import ADDRESS, CROP, JOB


@triton.jit
def load_int(field):
    """An int32."""
    return tl.load(field.to(tl.pointer_type(tl.int32)))


@triton.jit
def load_float(field, number: tl.constexpr = 0):
    """A float32; number: its place in the field."""
    return tl.load(field.to(tl.pointer_type(tl.float32)) + number)


@triton.jit
def load_address(field):
    """An address, int64."""
    return tl.load(field.to(tl.pointer_type(tl.int64)))


def offset_of(dtype: np.dtype, field: str) -> tl.constexpr:
    """Offset of a field in its record, in bytes."""
    return tl.constexpr(dtype.fields[field][1])


JOB_BYTES, CROP_BYTES, ADDRESS_BYTES = (tl.constexpr(dtype.itemsize) for dtype in (JOB, CROP, ADDRESS))
