"""Sums of products over eight lanes: plain ones, and ones that carry twice the digits.

The compiler must not reorder a sum, and so would take its terms one by one. Here each sum is eight sums, of every
eighth term, held in registers as an LLVM vector and added up at the end in one fixed order: the same bits on any
machine. Products are fused multiply-adds. Arrays are float64 and C-contiguous; counts are multiples of :data:`LANES`,
which zeros fill up at no harm.

Double-double numbers are pairs hi + lo with |lo| ≤ ulp(hi)/2; two_sum is Knuth's, two_product is by fused
multiply-add, and the dot product is Ogita, Rump and Oishi's ("Accurate sum and dot product", 2005): as if in twice the
precision, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types as untyped_types
from numba.core import cgutils as untyped_helpers
from numba.extending import intrinsic

types: Any = untyped_types
cgutils: Any = untyped_helpers

LANES = 8
"""Counts are multiples of it."""

_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_PAIR = types.UniTuple(types.float64, 2)
_Step = Callable[[Any, list[Any], list[Any]], list[Any]]


def _type_fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """The types of :data:`fma`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


fma: Any = intrinsic(_type_fma)
"""a · b + c, rounded once."""


def _type_dot(typing_context: Any, a: Any, a_row: Any, b: Any, b_row: Any, count: Any) -> Any:
    """The types of :data:`dot`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_row, b, b_row, count = arguments
        rows = [_row(context, builder, signature.args[0], a, a_row)]
        rows.append(_row(context, builder, signature.args[2], b, b_row))
        (sums,) = _over_lanes(builder, rows, count, 1, _add_product)
        total = builder.extract_element(sums, ir.Constant(ir.IntType(32), 0))
        for lane in range(1, LANES):
            total = builder.fadd(total, builder.extract_element(sums, ir.Constant(ir.IntType(32), lane)))
        return total

    return types.float64(a, types.intp, b, types.intp, types.intp), generate


dot: Any = intrinsic(_type_dot)
"""Σᵢ a[a_row, i] · b[b_row, i] for i < count."""


def _type_exact_dot(
    typing_context: Any, a: Any, a_row: Any, high: Any, low: Any, b_row: Any, count: Any
) -> Any:
    """The types of :data:`exact_dot`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_row, high, low, b_row, count = arguments
        rows = [_row(context, builder, signature.args[0], a, a_row)]
        rows.append(_row(context, builder, signature.args[2], high, b_row))
        rows.append(_row(context, builder, signature.args[3], low, b_row))
        highs, lows = _over_lanes(builder, rows, count, 2, _add_exact_product)
        lane = [ir.Constant(ir.IntType(32), index) for index in range(LANES)]
        total, rest = builder.extract_element(highs, lane[0]), builder.extract_element(lows, lane[0])
        for index in lane[1:]:
            total, error = _two_sum(builder, total, builder.extract_element(highs, index))
            rest = builder.fadd(rest, builder.fadd(error, builder.extract_element(lows, index)))
        return cgutils.pack_array(builder, _two_sum(builder, total, rest))

    return _PAIR(a, types.intp, high, low, types.intp, types.intp), generate


exact_dot: Any = intrinsic(_type_exact_dot)
"""Σᵢ a[a_row, i] · (high[b_row, i] + low[b_row, i]) for i < count, as a double-double number."""


def _row(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    """The address of a row of a two-dimensional array."""
    made = context.make_array(kind)(context, builder, array)
    width = builder.extract_value(made.shape, 1)
    return builder.gep(made.data, [builder.mul(row, width)])


def _over_lanes(builder: Any, rows: list[Any], count: Any, sums: int, step: _Step) -> list[Any]:
    """Runs ``step`` over all vectors of the rows; gives the sums, vectors too."""
    word, zero = ir.IntType(64), ir.Constant(_VECTOR, [0.0] * LANES)
    before = builder.block
    body, after = builder.append_basic_block("lanes"), builder.append_basic_block("lanes.end")
    start = ir.Constant(word, 0)
    builder.cbranch(builder.icmp_signed(">", count, start), body, after)
    builder.position_at_end(body)
    index = builder.phi(word)
    index.add_incoming(start, before)
    totals = [builder.phi(_VECTOR) for _ in range(sums)]
    for total in totals:
        total.add_incoming(zero, before)
    values = [_load(builder, row, index) for row in rows]
    new = step(builder, totals, values)
    following = builder.add(index, ir.Constant(word, LANES))
    index.add_incoming(following, body)
    for total, value in zip(totals, new, strict=True):
        total.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)
    results = []
    for value in new:
        result = builder.phi(_VECTOR)
        result.add_incoming(zero, before)
        result.add_incoming(value, body)
        results.append(result)
    return results


def _load(builder: Any, row: Any, index: Any) -> Any:
    address = builder.bitcast(builder.gep(row, [index]), _VECTOR.as_pointer())
    loaded = builder.load(address)
    loaded.align = 8
    return loaded


def _add_product(builder: Any, sums: list[Any], values: list[Any]) -> list[Any]:
    return [_fused(builder, values[0], values[1], sums[0])]


def _add_exact_product(builder: Any, sums: list[Any], values: list[Any]) -> list[Any]:
    a, high, low = values
    product = builder.fmul(a, high)
    error = _fused(builder, a, high, builder.fneg(product))
    total, rounding = _two_sum(builder, sums[0], product)
    return [total, builder.fadd(sums[1], _fused(builder, a, low, builder.fadd(rounding, error)))]


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The product a · b + c of vectors, rounded once; llvmlite itself has it for scalars only."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fma.v{LANES}f64"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _two_sum(builder: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """A + b rounded, and what the rounding left out."""
    total = builder.fadd(a, b)
    part = builder.fsub(total, a)
    return total, builder.fadd(builder.fsub(a, builder.fsub(total, part)), builder.fsub(b, part))
