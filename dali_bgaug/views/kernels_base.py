"""Primitives of the CPU's kernels: what they share, and instructions that Numba has no word for."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

compiled = njit(nogil=True, fastmath=True)

ONE, TWO, THREE = np.array([1, 2, 3], np.uintp)
"""Places of pixels are unsigned: where one may be negative, Numba checks each, and there is no SIMD."""
TAPS = 4
"""`weighted_sum` adds up a multiple of these, as many as a reduction by two needs."""
LANES = 32
"""`symmetric_sum` makes so many values."""
LINE = 16
"""Values of a line of the cache, 64 bytes: `stream` takes so many."""

_INDEX = ir.IntType(64)
_FOUR, _LANES, _LINE = (ir.VectorType(ir.FloatType(), count) for count in (TAPS, LANES, LINE))


@compiled
def copy(out: np.ndarray, to: int, values: np.ndarray, start: int, count: int) -> None:
    """Copy so many values of a line to a place in another.

    Numba's own assignment is several times slower, and slices are counted, which takes its time, too.
    """
    to, start = np.uintp(to), np.uintp(start)
    for place in range(np.uintp(count)):
        out[to + place] = values[start + place]


@intrinsic
def pointer(_: Any, address: Any) -> Any:
    """A pointer to an address, int64."""

    def generate(_0: Any, builder: Any, _1: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@intrinsic
def fetch_add(_: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address, one thread at a time; what it was before."""

    def generate(_0: Any, builder: Any, _1: Any, values: Any) -> Any:
        at = builder.inttoptr(values[0], cgutils.intp_t.as_pointer())
        return builder.atomic_rmw("add", at, values[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def weighted_sum(
    _: Any, out: Any, to: Any, line: Any, start: Any, weights: Any, first: Any, taps: Any
) -> Any:
    """Write a pixel, the weighted sum of `taps` in a row: four values from out[to] on, of which the fourth is
    of no use; the compiler would take three channels one by one.

    out, line, weights: float32, lines; the pixels begin at line[start], their weights at weights[first].
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        out, line, weights = (_data(context, builder, signature, values, number) for number in (0, 2, 4))
        to, start, first, taps = (values[number] for number in (1, 3, 5, 6))
        total = cgutils.alloca_once_value(builder, ir.Constant(_FOUR, [0.0] * TAPS))
        with cgutils.for_range_slice(builder, _INDEX(0), taps, _INDEX(TAPS), intp=_INDEX) as (begin, _):
            added = builder.load(total)
            for number in range(TAPS):
                tap = builder.add(begin, _INDEX(number))
                pixel = builder.add(start, builder.mul(tap, _INDEX(3)))
                weight = _spread(builder, weights, builder.add(first, tap), _FOUR)
                added = _add(builder, added, weight, _load(builder, line, pixel, _FOUR))
            builder.store(added, total)
        builder.store(builder.load(total), _place(builder, out, to, _FOUR), align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, line, types.int64, weights, types.int64, types.int64), generate


@intrinsic
def symmetric_sum(_: Any, out: Any, to: Any, values: Any, at: Any, stride: Any, weights: Any) -> Any:
    """Write LANES values, each the sum of weights[k] times its k-th neighbours on both sides, `stride` away
    from one another; the compiler would write and read what is added up at every step.

    out, values, weights: float32, lines; out[to] is of values[at].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, values, weights = (_data(context, builder, signature, arguments, number) for number in (0, 2, 5))
        _, to, _, at, stride, _ = arguments
        reach = context.make_array(signature.args[5])(context, builder, arguments[5]).nitems
        middle = builder.fmul(
            _spread(builder, weights, _INDEX(0), _LANES), _load(builder, values, at, _LANES)
        )
        total = cgutils.alloca_once_value(builder, middle)
        with cgutils.for_range_slice(builder, _INDEX(1), reach, _INDEX(1), intp=_INDEX) as (step, _count):
            distance = builder.mul(step, stride)
            before = _load(builder, values, builder.sub(at, distance), _LANES)
            after = _load(builder, values, builder.add(at, distance), _LANES)
            both = builder.fadd(before, after, flags=("fast",))
            weight = _spread(builder, weights, step, _LANES)
            builder.store(_add(builder, builder.load(total), weight, both), total)
        builder.store(builder.load(total), _place(builder, out, to, _LANES), align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, values, types.int64, types.int64, weights), generate


@intrinsic
def stream(_: Any, out: Any, to: Any, values: Any, start: Any, scales: Any, shifts: Any, first: Any) -> Any:
    """Write LINE values, scaled and shifted, past the cache: memory that is only written is not read.

    out, values, scales, shifts: float32, lines, read from values[start], scales[first] and shifts[first] on;
    out[to] lies at a multiple of 64 bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, values, scales, shifts = (
            _data(context, builder, signature, arguments, number) for number in (0, 2, 4, 5)
        )
        scale, shift = (_load(builder, array, arguments[6], _LINE) for array in (scales, shifts))
        value = _add(builder, shift, scale, _load(builder, values, arguments[3], _LINE))
        once = builder.module.add_metadata([ir.IntType(32)(1)])
        stored = builder.store(value, _place(builder, out, arguments[1], _LINE), align=4 * LINE)
        stored.set_metadata("nontemporal", once)
        return context.get_dummy_value()

    return types.void(out, types.int64, values, types.int64, scales, shifts, types.int64), generate


def _data(context: Any, builder: Any, signature: Any, values: Any, number: int) -> Any:
    """Where an argument's values lie."""
    return context.make_array(signature.args[number])(context, builder, values[number]).data


def _place(builder: Any, array: Any, index: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(array, [index]), vector.as_pointer())


def _load(builder: Any, array: Any, index: Any, vector: Any) -> Any:
    return builder.load(_place(builder, array, index, vector), align=4)


def _spread(builder: Any, array: Any, index: Any, vector: Any) -> Any:
    """One value in all places of a vector."""
    value = builder.load(builder.gep(array, [index]))
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, places)


def _add(builder: Any, total: Any, weight: Any, value: Any) -> Any:
    return builder.fadd(total, builder.fmul(weight, value, flags=("fast",)), flags=("fast",))
