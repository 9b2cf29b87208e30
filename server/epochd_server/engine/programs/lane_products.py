"""The one inner loop that small trainings spend their time in: sums of products, many members at once.

The compiler's own vectorisation of such a loop keeps the running sums in memory. Here they stay in registers:
the loop is written as LLVM vectors of lanes. Every lane still adds its products one after the other, in order,
with a rounding after each multiplication and each addition (no fused multiply-add), whichever width its tile has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_TILE_BYTES = (256, 32)
"""Widths of tiles: eight 32-byte registers hide the latency of an addition; what is left goes by one, then by lane."""


def _type_products(
    typing_context: Any,
    sums: Any,
    index: Any,
    left: Any,
    a: Any,
    a_stride: Any,
    right: Any,
    b: Any,
    b_stride: Any,
    count: Any,
) -> Any:
    """The types of :data:`add_products`; all arguments are."""
    signature = types.void(sums, index, left, a, a_stride, right, b, b_stride, count)
    return signature, _generate


add_products: Any = intrinsic(_type_products)
"""``sums[index] += Σₖ left[a + k · a_stride] · right[b + k · b_stride]`` for k < count, in every lane.

Arrays are [positions, lanes], C-contiguous, of one dtype; ``sums[index]`` overlaps no position that is read.
"""


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    sums, index, left, a, a_stride, right, b, b_stride, count = arguments
    kinds = signature.args
    word = ir.IntType(64)
    index, a, a_stride, b, b_stride, count = (
        context.cast(builder, value, kind, types.int64)
        for value, kind in ((index, kinds[1]), (a, kinds[3]), (a_stride, kinds[4]), (b, kinds[6]),
                            (b_stride, kinds[7]), (count, kinds[8]))
    )  # fmt: skip
    arrays = [
        context.make_array(kind)(context, builder, value)
        for kind, value in ((kinds[0], sums), (kinds[2], left), (kinds[5], right))
    ]
    lanes = builder.extract_value(arrays[0].shape, 1)
    element = context.get_data_type(kinds[0].dtype)
    size = context.get_abi_sizeof(element)
    starts = [
        builder.gep(array.data, [builder.mul(position, lanes)])
        for array, position in zip(arrays, (index, a, b), strict=True)
    ]
    strides = [builder.mul(a_stride, lanes), builder.mul(b_stride, lanes)]
    done = ir.Constant(word, 0)
    for width in (*(tile // size for tile in _TILE_BYTES), 1):
        vector = ir.VectorType(element, width) if width > 1 else element
        tiles = builder.udiv(builder.sub(lanes, done), ir.Constant(word, width))
        with cgutils.for_range(builder, tiles) as tile:
            lane = builder.add(done, builder.mul(tile.index, ir.Constant(word, width)))
            _tile(builder, vector, size, [builder.gep(start, [lane]) for start in starts], strides, count)
        done = builder.add(done, builder.mul(tiles, ir.Constant(word, width)))
    return context.get_dummy_value()


def _tile(builder: Any, vector: Any, size: int, places: list[Any], strides: list[Any], count: Any) -> None:
    """The whole sum of one tile of lanes, its running value in registers."""
    word = ir.IntType(64)

    def load(pointer: Any) -> Any:
        return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size)

    total = load(places[0])
    before = builder.block
    loop, after = builder.append_basic_block("products"), builder.append_basic_block("products.end")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(word, 0)), loop, after)
    builder.position_at_end(loop)
    k, left, right, running = (
        builder.phi(kind) for kind in (word, places[1].type, places[2].type, total.type)
    )
    following = builder.fadd(running, builder.fmul(load(left), load(right)))
    next_k = builder.add(k, ir.Constant(word, 1))
    for phi, first, then in (
        (k, ir.Constant(word, 0), next_k),
        (left, places[1], builder.gep(left, [strides[0]])),
        (right, places[2], builder.gep(right, [strides[1]])),
        (running, total, following),
    ):
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", next_k, count), loop, after)
    builder.position_at_end(after)
    result = builder.phi(total.type)
    result.add_incoming(total, before)
    result.add_incoming(following, loop)
    builder.store(result, builder.bitcast(places[0], vector.as_pointer()), align=size)
