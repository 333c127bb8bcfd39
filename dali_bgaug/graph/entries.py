"""How DALI calls the kernels: code with C's calling convention, for each sample of a batch.

Numba compiles it when this is first imported, some ten seconds, and keeps the machine code beside this file,
or in NUMBA_CACHE_DIR.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import carray, cfunc
from numba import types as native
from numba.core import cgutils
from numba.extending import intrinsic

from dali_bgaug.graph import kernels

# An entry gets the outputs' data, shapes, dimensions and number; then the inputs'.
_data, _shapes = native.CPointer(native.voidptr), native.CPointer(native.CPointer(native.int64))
_described = (_shapes, native.CPointer(native.int32), native.int32)
_of_sample = native.void(_data, *_described, _data, *_described)
_of_batch = native.void(_data, *_described, native.voidptr, *_described, native.int32)


@cache
def _kind() -> str:
    """A digest of the kernels and of this machine's processor."""
    processor = get_host_cpu_name() + get_host_cpu_features().flatten()
    return hashlib.sha256(Path(kernels.__file__).read_bytes() + processor.encode()).hexdigest()[:12]


def _entry(signature: Any) -> Callable[[Callable[..., None]], Any]:
    """Compile an entry and keep its machine code.

    Numba looks at this file's date alone to see whether what it has kept is out of date, and processes that
    compile at the same time would overwrite each other's code, were there more than one kind of it in a file.
    So an entry has one signature, and its file's name says of which kernels it is, and for which processor.
    """

    def compile_entry(function: Callable[..., None]) -> Any:
        function.__qualname__ += f"-{_kind()}"
        try:
            return cfunc(signature, cache=True)(function)
        except RuntimeError:  # nowhere to keep it: a read-only installation, no home
            return cfunc(signature)(function)

    return compile_entry


@cache
def shape_setter(size: int | None) -> Any:
    """What is called for a batch, to say how large its outputs will be; the one of no size is a scalar."""
    if size is None:

        @cfunc(native.void(*_described, *_described, native.int32))
        def leave_shapes(_0: Any, _1: Any, _2: Any, _3: Any, _4: Any, _5: Any, _6: Any) -> None:
            pass

        return leave_shapes

    @cfunc(native.void(*_described, *_described, native.int32))
    def set_shapes(shapes: Any, _0: Any, _1: Any, _2: Any, _3: Any, _4: Any, count: Any) -> None:
        for sample in range(count):
            shapes[sample][0], shapes[sample][1], shapes[sample][2] = size, size, 3

    return set_shapes


@kernels.compiled
def _pixels(data: Any, shapes: Any, place: int, dtype: Any) -> np.ndarray:
    return carray(data[place], (shapes[place][0], shapes[place][1], 3), dtype)


@kernels.compiled
def _row(data: Any, place: int) -> np.ndarray:
    """One of a photo's rows: `place` has them, the input behind it says which."""
    number = carray(data[place + 1], 1, np.int32)[0]
    return carray(data[place], (number + 1, kernels.LENGTH), np.float32)[number]


@intrinsic
def _as_pointer(_: Any, address: Any) -> Any:
    def generate(_0: Any, builder: Any, _1: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return native.voidptr(address), generate


@kernels.compiled
def _other(data: Any, place: int, shape: tuple[int, int, int]) -> np.ndarray:
    """What an address points to."""
    return carray(_as_pointer(carray(data[place], 1, np.int64)[0]), shape, np.float32)


@kernels.compiled
def _bytes(data: Any, shapes: Any, place: int) -> np.ndarray:
    return carray(data[place], shapes[place][0], np.uint8)


@_entry(_of_sample)
def make_view_entry(outs: Any, sizes: Any, _0: Any, _1: Any, ins: Any, shapes: Any, _2: Any, _3: Any) -> None:
    """`make_view`; inputs: photo, rows, number of the row."""
    out = _pixels(outs, sizes, 0, np.float32)
    kernels.make_view(out, _pixels(ins, shapes, 0, np.uint8), _row(ins, 1))


@_entry(_of_sample)
def make_view_over_grey_entry(
    outs: Any, sizes: Any, _0: Any, _1: Any, ins: Any, shapes: Any, _2: Any, _3: Any
) -> None:
    """`make_view` and `put_grey_behind`; inputs: photo, rows, number of the row, packed mask."""
    out, row = _pixels(outs, sizes, 0, np.float32), _row(ins, 1)
    kernels.make_view(out, _pixels(ins, shapes, 0, np.uint8), row)
    if row[kernels.REPLACED]:
        kernels.put_grey_behind(out, row, _bytes(ins, shapes, 3))


@_entry(_of_sample)
def make_view_over_image_entry(
    outs: Any, sizes: Any, _0: Any, _1: Any, ins: Any, shapes: Any, _2: Any, _3: Any
) -> None:
    """`make_view` and `put_behind`; inputs: photo, rows, number of the row, packed mask, address of the image
    behind, (the images)."""
    out, row = _pixels(outs, sizes, 0, np.float32), _row(ins, 1)
    kernels.make_view(out, _pixels(ins, shapes, 0, np.uint8), row)
    if row[kernels.REPLACED]:
        kernels.put_behind(out, out, _other(ins, 4, out.shape), row, _bytes(ins, shapes, 3))


@_entry(_of_sample)
def copy_over_entry(outs: Any, sizes: Any, _0: Any, _1: Any, ins: Any, shapes: Any, _2: Any, _3: Any) -> None:
    """Copy an image or, where the row says so, `put_behind` of it and a view; inputs: view, rows, number of
    the row, packed mask, address of the image, (the images)."""
    out, row = _pixels(outs, sizes, 0, np.float32), _row(ins, 1)
    image = _other(ins, 4, out.shape)
    if row[kernels.REPLACED]:
        kernels.put_behind(out, image, _pixels(ins, shapes, 0, np.float32), row, _bytes(ins, shapes, 3))
    else:
        kernels.copy(out.reshape(-1), image.reshape(-1))


@_entry(_of_batch)
def find_entry(outs: Any, _0: Any, _1: Any, _2: Any, ins: Any, _3: Any, _4: Any, _5: Any, count: Any) -> None:
    """Addresses of other samples of a batch; inputs: images, places in the batch, number of the place."""
    # Of a batch `ins` has the inputs one after another, each with all its samples.
    addresses = carray(ins, 3 * count, np.intp)
    number = carray(_as_pointer(addresses[2 * count]), 1, np.int32)[0]
    for sample in range(count):
        place = carray(_as_pointer(addresses[count + sample]), number + 1, np.int32)[number]
        carray(outs[sample], 1, np.int64)[0] = addresses[place]
