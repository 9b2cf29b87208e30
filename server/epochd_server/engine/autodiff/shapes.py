"""What each operation does to shapes, worked out before a single element is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """The operands do not fit each other; the text says why and names their shapes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an operation, as far as shapes decide it.

    Attributes:
        shape: Shape of the result.
        largest: Elements of the largest tensor the operation may allocate, the result included.
        multiplications: Scalar products of a matrix product; 0 for everything else.
    """

    shape: Shape
    largest: int
    multiplications: int = 0


def elementwise(operands: Sequence[Shape]) -> Outcome:
    """The operands broadcast against each other, as in NumPy and PyTorch.

    Raises:
        ShapeError: When they cannot be broadcast.
    """
    shape: Shape = ()
    for operand in operands:
        shape = _broadcast(shape, operand)
    return Outcome(shape, math.prod(shape))


def reduction(operands: Sequence[Shape]) -> Outcome:
    """One operand, of which every element is reduced to a scalar."""
    return Outcome((), 1)


def extremum(operands: Sequence[Shape]) -> Outcome:
    """``max`` and ``min``: one operand is reduced to a scalar, two are compared elementwise.

    Raises:
        ShapeError: When an empty tensor is to be reduced, or two operands cannot be broadcast.
    """
    if len(operands) == 2:
        return elementwise(operands)
    if math.prod(operands[0]) == 0:
        raise ShapeError(f"a tensor of shape {shown(operands[0])} has no elements to choose from")
    return reduction(operands)


def matrix_product(operands: Sequence[Shape]) -> Outcome:
    """``torch.matmul``: [k]·[k], [n, k]·[k], [k]·[k, m], [n, k]·[k, m], and batches [..., n, k]·[..., k, m].

    Raises:
        ShapeError: When an operand is a scalar, the inner sizes differ or the batches cannot be broadcast.
    """
    left, right = operands
    if not left or not right:
        raise ShapeError("matmul needs tensors of one dimension or more; write * to multiply by a scalar")
    rows, inner = (left[-2:-1], left[-1])
    columns = right[-1:] if len(right) > 1 else ()
    if inner != (right[-2] if len(right) > 1 else right[0]):
        raise ShapeError(f"matmul of shapes {shown(left)} and {shown(right)}: the inner sizes differ")
    batch = _broadcast(left[:-2], right[:-2])
    per_batch = math.prod(batch)
    n, m = math.prod(rows), math.prod(columns)
    # PyTorch may copy an operand that is broadcast over the batch, in the product or in its gradient.
    largest = per_batch * max(n * m, n * inner, inner * m)
    return Outcome((*batch, *rows, *columns), largest, per_batch * n * inner * m)


def shown(shape: Shape) -> str:
    """A shape as an error message writes it: ``[2, 3]``, or ``[]`` for a scalar."""
    return str(list(shape))


def _broadcast(left: Shape, right: Shape) -> Shape:
    rank = max(len(left), len(right))
    sizes = []
    for a, b in zip(_padded(left, rank), _padded(right, rank), strict=True):
        if a != b and 1 not in (a, b):
            raise ShapeError(f"shapes {shown(left)} and {shown(right)} cannot be broadcast together")
        sizes.append(b if a == 1 else a)
    return tuple(sizes)


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape
