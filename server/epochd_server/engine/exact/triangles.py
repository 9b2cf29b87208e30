"""The triangular factor of a tall matrix, a block of rows at a time, and what is solved with it.

Legend: p coefficients, q = p + right-hand sides, B rows of a block (:data:`BLOCK`). A block is [q, B]: a column of
the matrix is a row of the block, so that the innermost loops run along memory.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.vectors import dot

Array = NDArray[np.float64]

BLOCK = 128
"""Rows of a block: with twenty columns it stays in the processor's first cache."""


@kernel
def absorb(factor: Array, block: Array, columns: int, filled: int) -> None:
    """Makes ``factor`` [p, q] that of its rows and the block's, by Householder reflections.

    Args:
        factor: Upper triangular in its first p columns; the others are Qᵀ times the right-hand sides.
        block: Overwritten. Rows beyond those that count are zero.
        columns: p.
        filled: Rows that count, rounded up to a multiple of :data:`.vectors.LANES`.
    """
    width = factor.shape[1]
    for k in range(columns):
        below = dot(block, k, block, k, filled)
        if below == 0.0:
            continue
        alpha = factor[k, k]
        norm = math.sqrt(alpha * alpha + below)
        head = alpha + norm if alpha >= 0.0 else alpha - norm
        scale = 1.0 / (norm * abs(head))
        factor[k, k] = -norm if alpha >= 0.0 else norm
        for j in range(k + 1, width):
            part = (head * factor[k, j] + dot(block, k, block, j, filled)) * scale
            factor[k, j] -= part * head
            for i in range(filled):
                block[j, i] -= part * block[k, i]


@kernel
def invert(factor: Array, columns: int, inverse: Array) -> bool:
    """Inverts the upper triangle of ``factor`` into ``inverse`` [p, p]; False where that cannot be done."""
    for j in range(columns):
        if factor[j, j] == 0.0 or not math.isfinite(factor[j, j]):
            return False
        inverse[j, j] = 1.0 / factor[j, j]
        for i in range(j - 1, -1, -1):
            total = 0.0
            for k in range(i + 1, j + 1):
                total += factor[i, k] * inverse[k, j]
            inverse[i, j] = -total / factor[i, i]
            inverse[j, i] = 0.0
    return True


@kernel
def condition(factor: Array, inverse: Array, columns: int) -> float:
    """The condition number of the triangle in the 1-norm."""
    largest, largest_inverse = 0.0, 0.0
    for j in range(columns):
        total, total_inverse = 0.0, 0.0
        for i in range(j + 1):
            total += abs(factor[i, j])
            total_inverse += abs(inverse[i, j])
        largest = max(largest, total)
        largest_inverse = max(largest_inverse, total_inverse)
    return largest * largest_inverse


@kernel
def solve_upper(factor: Array, columns: int, x: Array) -> None:
    """Replaces ``x`` [p] by R⁻¹ x."""
    for i in range(columns - 1, -1, -1):
        total = x[i]
        for k in range(i + 1, columns):
            total -= factor[i, k] * x[k]
        x[i] = total / factor[i, i]


@kernel
def solve_lower(factor: Array, columns: int, x: Array) -> None:
    """Replaces ``x`` [p] by R⁻ᵀ x."""
    for i in range(columns):
        x[i] /= factor[i, i]
        for k in range(i + 1, columns):
            x[k] -= factor[i, k] * x[i]
