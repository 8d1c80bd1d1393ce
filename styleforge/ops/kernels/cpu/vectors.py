"""Matrix products and linear maps that one thread calculates, between other steps of a kernel, in registers.

What is summed up stays in the processor's registers until it is a result. Numba offers no way to say so, hence these
few instructions are written for its compiler, LLVM, which makes the processor's vectors of those of `LANES` numbers.
Nothing here keeps kernels from reading or writing beyond their arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from styleforge.ops.kernels.cpu.compiled import part

LANES = 16
"""Numbers of a vector: two, four or one of the processor's, where these have 8 (AVX2), 4 (NEON) or 16 (AVX-512)."""
ROWS = 6
"""Rows that are multiplied at a time: in float32 their sums take 12 of AVX2's 16 registers, what makes them, 3 more."""
_STEPS = 32
"""So many products are summed up before the sum is added to others: sums of sums have smaller rounding errors."""


def round_up(number: int, multiple: int) -> int:
    """To a multiple."""
    return -(-number // multiple) * multiple


def _block(rows: int) -> Callable[..., None]:
    """A function for kernels, c[row, lane] (+)= the sum over steps k of a[row, k]·b[k, lane].

    Args:
        rows: So many rows of c; it has `LANES` columns.

    Returns:
        The function of (a, a_at, a_row, a_step, b, b_at, b_step, c, c_at, c_row, steps, add). Each array is contiguous,
        of whatever dimensions, and begins at a place; the strides say how far apart its rows and steps are. The last
        argument says whether it adds to what c holds. All arrays are of one dtype, float32 or float64.
    """

    @intrinsic
    def sum_up(  # type: ignore[no-untyped-def]
        context, a, a_at, a_row, a_step, b, b_at, b_step, c, c_at, c_row, steps, add
    ):
        if not _alike(a, b, c):
            return None
        place = types.intp
        return types.void(a, place, place, place, b, place, place, c, place, place, place, types.boolean), write

    def write(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, a_at, a_row, a_step, _, b_at, b_step, _, c_at, c_row, steps, add = arguments
        write = _Writer(context, builder, signature.args[0].dtype)
        a, b, c = (write.start_of(signature.args[i], arguments[i]) for i in (0, 4, 7))
        sums, place = [write.variable() for _ in range(rows)], steps.type
        with cgutils.for_range(builder, steps) as step:
            vector = write.load(b, b_at, b_step, step.index)
            factors = write.moved(a, a_at, a_step, step.index)
            for row, total in enumerate(sums):
                factor = write.spread(builder.load(write.moved(factors, place(0), a_row, place(row))))
                builder.store(write.multiply_add(factor, vector, builder.load(total)), total)
        with builder.if_then(add):
            for row, total in enumerate(sums):
                builder.store(builder.fadd(builder.load(total), write.load(c, c_at, c_row, place(row))), total)
        for row, total in enumerate(sums):
            write.store(builder.load(total), c, c_at, c_row, place(row))
        return context.get_dummy_value()

    function: Callable[..., None] = sum_up
    return function


_block_of_six, _block_of_four = _block(ROWS), _block(4)


@part
def multiply(a, panels, c):  # type: ignore[no-untyped-def]
    """C = A·B.

    Args:
        a: A [rows, ≥ K], rows a multiple of `ROWS`.
        panels: B [K, columns] as [columns / LANES, K, LANES].
        c: C [rows, columns], is overwritten.
    """
    (rows, a_row), (num, K, _), columns = a.shape, panels.shape, c.shape[1]
    for panel in range(num):
        for k in range(0, K, _STEPS):
            b_at, steps = (panel * K + k) * LANES, min(K - k, _STEPS)
            for row in range(0, rows, ROWS):
                a_at, c_at = row * a_row + k, row * columns + panel * LANES
                _block_of_six(a, a_at, a_row, 1, panels, b_at, LANES, c, c_at, columns, steps, k > 0)


@part
def add_transposed(a, panels, c, steps):  # type: ignore[no-untyped-def]
    """Adds Aᵀ·B to C.

    Args:
        a: A [≥ steps, rows], rows a multiple of `LANES`.
        panels: B [≥ steps, columns] as [columns / LANES, ≥ steps, LANES].
        c: C [rows, columns].
        steps: So many rows of A and B are taken.
    """
    (rows, columns), (num, K, _) = c.shape, panels.shape
    sixes = rows // ROWS * ROWS
    while (rows - sixes) % 4 != 0:  # fours can make up the rest, since there are 16 rows or more
        sixes -= ROWS
    for panel in range(num):
        b_at = panel * K * LANES
        for row in range(0, sixes, ROWS):
            c_at = row * columns + panel * LANES
            _block_of_six(a, row, 1, rows, panels, b_at, LANES, c, c_at, columns, steps, True)
        for row in range(sixes, rows, 4):
            c_at = row * columns + panel * LANES
            _block_of_four(a, row, 1, rows, panels, b_at, LANES, c, c_at, columns, steps, True)


def linear_map(matrix: np.ndarray) -> Callable[..., None]:
    """A function for kernels, into[into_at + i·into_row + e] = the sum over j of matrix[i, j]·x[x_at + j·x_row + e].

    Args:
        matrix: Known when kernels are compiled, such that nothing is multiplied by 0 or 1.

    Returns:
        The function of (x, x_at, x_row, into, into_at, into_row, size), for all e below the size, a multiple of
        `LANES`. x and into are contiguous arrays of one dtype, float32 or float64, whose dimensions do not matter.
    """

    @intrinsic
    def apply(context, x, x_at, x_row, into, into_at, into_row, size):  # type: ignore[no-untyped-def]
        if not _alike(x, into):
            return None
        return types.void(x, *[types.intp] * 2, into, *[types.intp] * 3), write

    def write(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, x_at, x_row, _, into_at, into_row, size = arguments
        write = _Writer(context, builder, signature.args[0].dtype)
        x, into = (write.start_of(signature.args[i], arguments[i]) for i in (0, 3))
        place = size.type
        with cgutils.for_range_slice(builder, place(0), size, place(LANES)) as (e, _):
            vectors = [write.load(x, builder.add(x_at, e), x_row, place(j)) for j in range(matrix.shape[1])]
            for i, row in enumerate(matrix):
                write.store(write.combination(row, vectors), into, builder.add(into_at, e), into_row, place(i))
        return context.get_dummy_value()

    function: Callable[..., None] = apply
    return function


copy = linear_map(np.ones((1, 1)))
"""Copies into[into_at + e] = x[x_at + e], with the arguments of any of these functions."""


def _alike(*arrays: Any) -> bool:
    """Whether these are contiguous arrays of one dtype, float32 or float64; for others Numba has no such function."""
    dtypes = {array.dtype if isinstance(array, types.Array) and array.layout == "C" else None for array in arrays}
    return len(dtypes) == 1 and dtypes <= {types.float32, types.float64}


class _Writer:
    """Writes LLVM's instructions on vectors."""

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Float):
        self._context, self._builder = context, builder
        number = context.get_value_type(dtype)
        self._itemsize: int = context.get_abi_sizeof(number)
        self._vector = ir.VectorType(number, LANES)

    def start_of(self, kind: types.Array, array: Any) -> Any:
        """The pointer to an array's first number."""
        return self._context.make_array(kind)(self._context, self._builder, array).data

    def moved(self, start: Any, at: Any, stride: Any, times: Any) -> Any:
        """The pointer start + at + stride·times, in numbers."""
        return self._builder.gep(start, [self._builder.add(at, self._builder.mul(stride, times))])

    def variable(self) -> Any:
        """A place for a vector, which LLVM turns to a register, of zeros."""
        place = cgutils.alloca_once(self._builder, self._vector)
        self._builder.store(self._constant(0), place)
        return place

    def load(self, *place: Any) -> Any:
        """The vector at a place, with the arguments of `moved`."""
        return self._builder.load(self._as_vector(self.moved(*place)), align=self._itemsize)

    def store(self, vector: Any, *place: Any) -> None:
        """Stores a vector at a place, with the arguments of `moved`."""
        self._builder.store(vector, self._as_vector(self.moved(*place)), align=self._itemsize)

    def spread(self, number: Any) -> Any:
        """A vector of one number."""
        nothing, lane = ir.Constant(self._vector, ir.Undefined), ir.IntType(32)
        first = self._builder.insert_element(nothing, number, lane(0))
        return self._builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, rounded once where the processor does that as quickly."""
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        name = f"llvm.fmuladd.v{LANES}f{8 * self._itemsize}"
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, kind, name), [a, b, c])

    def combination(self, factors: np.ndarray, vectors: list[Any]) -> Any:
        """The sum of products of numbers, known now, and vectors."""
        total = None
        for factor, vector in zip(map(float, factors), vectors, strict=True):
            if total is None and factor != 0:
                total = vector if factor == 1 else self._builder.fmul(vector, self._constant(factor))
            elif factor == 1:
                total = self._builder.fadd(total, vector)
            elif factor == -1:
                total = self._builder.fsub(total, vector)
            elif factor != 0:
                total = self.multiply_add(vector, self._constant(factor), total)
        return self._constant(0) if total is None else total

    def _constant(self, number: float) -> ir.Constant:
        return ir.Constant(self._vector, [float(number)] * LANES)

    def _as_vector(self, pointer: Any) -> Any:
        return self._builder.bitcast(pointer, self._vector.as_pointer())
