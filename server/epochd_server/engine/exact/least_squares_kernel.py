"""Weighted and penalised least squares of many members, one after the other.

Each member is fitted in four steps:

1. Its columns are multiplied by powers of two, which rounds nothing, so that all have about the length 1.
2. The triangular factor R of the weighted matrix comes from Householder reflections, block by block, and the first
   solution from R. The penalty is √l2 · I below the matrix.
3. R tells the condition number; from :func:`.columns.rank_limit` on, the rank counts as deficient.
4. The solution is refined: the gradient Aᵀ W (y − A β) − l2 β of the data itself is summed in double-double
   arithmetic and R⁻¹ R⁻ᵀ times it is added, until nothing changes. As R only steers, its own rounding does not limit
   the digits (Björck's corrected seminormal equations, with the residual in twice the precision).

Legend: N rows, d features, t targets, M members, p = d + bias coefficients, the bias first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.columns import (
    CONDITION,
    EPSILON,
    WEIGHT,
    fill,
    penalise,
    rank_limit,
    scale_columns,
    weigh,
)
from epochd_server.engine.exact.triangles import (
    BLOCK,
    absorb,
    condition,
    invert,
    solve_lower,
    solve_upper,
)
from epochd_server.engine.exact.vectors import dot, exact_dot, fma

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

PASSES = 6
"""Refinements at most; nearly always one or two are made."""
SOLVED, DEFICIENT = 0, 1


@kernel
def begin_member(
    features: Array, weights: Array, start: int, count: int, bias: bool, facts: Array, scales: Array
) -> None:
    """Notes a member's weights among its facts [:data:`.columns.FACTS`] and finds what scales its columns [p]."""
    weigh(weights, start, count, facts)
    scale_columns(features, weights, start, count, bias, scales)


@kernel
def fit_members(
    features: Array,
    targets: Array,
    weights: Array,
    starts: Integers,
    counts: Integers,
    bias: bool,
    l2: float,
    penalize_bias: bool,
    coefficients: Array,
    spreads: Array,
    residuals: Array,
    totals: Array,
    facts: Array,
    states: Integers,
    factor: Array,
    inverse: Array,
    block: Array,
    scales: Array,
    solution: Array,
    gradient: Array,
    parts: Array,
) -> None:
    """Fits members.

    Args:
        features: [N, d].
        targets: [N, t].
        weights: [N], or [0] where every row counts alike.
        starts: [M] first rows.
        counts: [M] numbers of rows.
        bias: Whether there is a constant.
        l2: The penalty.
        penalize_bias: Whether it counts the constant, too.
        coefficients: Out, [M, t, p].
        spreads: Out, [M, p]: the diagonal of (Aᵀ W A)⁻¹.
        residuals: Out, [M, t]: weighted sums of squared residuals.
        totals: Out, [M, t]: weighted sums of squares about the mean, or about 0 without bias.
        facts: Out, [M, :data:`.columns.FACTS`].
        states: Out, [M]: SOLVED or DEFICIENT.
        factor: Work, [p, p + t]; of the last member its R in scaled columns, and Qᵀ y.
        inverse: Work, [p, p].
        block: Work, [p + t, BLOCK].
        scales: Work, [p]; of the last member what its columns were multiplied by.
        solution: Work, [t, p].
        gradient: Work, [t, 2, p].
        parts: Work, [2, BLOCK].
    """
    columns = features.shape[1] + (1 if bias else 0)
    for member in range(len(starts)):
        start, count = starts[member], counts[member]
        begin_member(features, weights, start, count, bias, facts[member], scales)
        _factorise(features, targets, weights, start, count, bias, scales, factor, block)
        penalise(l2, bias and not penalize_bias, scales, factor, block)
        solved = invert(factor, columns, inverse)
        number = condition(factor, inverse, columns) if solved else math.inf
        facts[member, CONDITION] = number
        if not number < rank_limit(count, columns):
            states[member] = DEFICIENT
            continue
        states[member] = SOLVED
        finish_member(
            features, targets, weights, start, count, bias, l2, penalize_bias, facts[member, WEIGHT],
            coefficients[member], residuals[member], totals[member],
            scales, factor, block, solution, gradient, parts,
        )  # fmt: skip
        for j in range(columns):
            total = 0.0
            for k in range(j, columns):
                total += inverse[j, k] * inverse[j, k]
            spreads[member, j] = total * scales[j] * scales[j]


@kernel
def finish_member(
    features: Array,
    targets: Array,
    weights: Array,
    start: int,
    count: int,
    bias: bool,
    l2: float,
    penalize_bias: bool,
    weight: float,
    coefficients: Array,
    residuals: Array,
    totals: Array,
    scales: Array,
    factor: Array,
    block: Array,
    solution: Array,
    gradient: Array,
    parts: Array,
) -> None:
    """Solves with a member's triangular factor and refines; the arguments are those of :func:`fit_members`."""
    columns = len(scales)
    for target in range(targets.shape[1]):
        for j in range(columns):
            solution[target, j] = factor[j, columns + target]
        solve_upper(factor, columns, solution[target])
    _refine(
        features, targets, weights, start, count, bias, l2, bias and not penalize_bias,
        scales, factor, block, solution, gradient, parts, residuals,
    )  # fmt: skip
    _sum_totals(targets, weights, start, count, bias, weight, totals)
    for target in range(targets.shape[1]):
        for j in range(columns):
            coefficients[target, j] = solution[target, j] * scales[j]


@kernel
def _factorise(
    features: Array,
    targets: Array,
    weights: Array,
    start: int,
    count: int,
    bias: bool,
    scales: Array,
    factor: Array,
    block: Array,
) -> None:
    factor[:, :] = 0.0
    columns = len(scales)
    for begin in range(start, start + count, BLOCK):
        rows = min(BLOCK, start + count - begin)
        filled = fill(features, begin, rows, bias, scales, block)
        _fill_targets(targets, begin, rows, filled, columns, block)
        if len(weights):
            for i in range(rows):
                root = math.sqrt(weights[begin + i])
                for j in range(block.shape[0]):
                    block[j, i] *= root
        absorb(factor, block, columns, filled)


@kernel
def _fill_targets(targets: Array, begin: int, count: int, filled: int, first: int, block: Array) -> None:
    """Copies targets into the block's last rows."""
    for j in range(targets.shape[1]):
        for i in range(count):
            block[first + j, i] = targets[begin + i, j]
        for i in range(count, filled):
            block[first + j, i] = 0.0


@kernel
def _refine(
    features: Array,
    targets: Array,
    weights: Array,
    start: int,
    count: int,
    bias: bool,
    l2: float,
    spare_first: bool,
    scales: Array,
    factor: Array,
    block: Array,
    solution: Array,
    gradient: Array,
    parts: Array,
    residuals: Array,
) -> None:
    columns, before = len(scales), math.inf
    for _ in range(PASSES):
        residuals[:] = 0.0
        gradient[:, :, :] = 0.0
        for begin in range(start, start + count, BLOCK):
            rows = min(BLOCK, start + count - begin)
            filled = fill(features, begin, rows, bias, scales, block)
            _fill_targets(targets, begin, rows, filled, columns, block)
            for target in range(targets.shape[1]):
                residuals[target] += _residual(
                    block, columns, target, filled, weights, begin, rows, solution[target], parts
                )
                _add_gradient(block, columns, filled, parts, gradient[target])
        change = 0.0
        for target in range(targets.shape[1]):
            step = gradient[target, 0]
            for j in range(columns):
                step[j] += gradient[target, 1, j]
                if l2 > 0.0 and not (spare_first and j == 0):
                    step[j] -= l2 * scales[j] * scales[j] * solution[target, j]
            solve_lower(factor, columns, step)
            solve_upper(factor, columns, step)
            change = max(change, _step(solution[target], step))
        if change * change <= 0.25 * EPSILON or not change < 0.5 * before:
            return
        before = change


@kernel
def _step(solution: Array, step: Array) -> float:
    """Adds the step; gives the largest change of a coefficient as a part of it."""
    largest, change = 0.0, 0.0
    for j in range(len(solution)):
        largest = max(largest, abs(solution[j]))
    for j in range(len(solution)):
        size = max(abs(solution[j]), EPSILON * largest)
        if size > 0.0:
            change = max(change, abs(step[j]) / size)
        solution[j] += step[j]
    return change


@kernel
def _residual(
    block: Array,
    columns: int,
    target: int,
    filled: int,
    weights: Array,
    begin: int,
    rows: int,
    solution: Array,
    parts: Array,
) -> float:
    """W (y − A β) of a block into ``parts``, high and low; gives the weighted sum of squared residuals."""
    high, low = parts[0], parts[1]
    for i in range(filled):
        high[i] = block[columns + target, i]
        low[i] = 0.0
    for j in range(columns):
        factor = -solution[j]
        for i in range(filled):
            product = block[j, i] * factor
            error = fma(block[j, i], factor, -product)
            total = high[i] + product
            part = total - high[i]
            low[i] += error + ((high[i] - (total - part)) + (product - part))
            high[i] = total
    if not len(weights):
        return float(dot(parts, 0, parts, 0, filled))
    squares = 0.0
    for i in range(rows):
        weight = weights[begin + i]
        value = high[i] + low[i]
        squares += weight * value * value
        product = high[i] * weight
        low[i] = fma(high[i], weight, -product) + low[i] * weight
        high[i] = product
    return squares


@kernel
def _add_gradient(block: Array, columns: int, filled: int, parts: Array, gradient: Array) -> None:
    """Adds Aᵀ of a block times ``parts`` to ``gradient``, high and low."""
    for j in range(columns):
        high, low = exact_dot(block, j, parts[0:1], parts[1:2], 0, filled)
        total = gradient[0, j] + high
        part = total - gradient[0, j]
        gradient[1, j] += low + ((gradient[0, j] - (total - part)) + (high - part))
        gradient[0, j] = total


@kernel
def _sum_totals(
    targets: Array, weights: Array, start: int, count: int, bias: bool, weight: float, totals: Array
) -> None:
    for target in range(targets.shape[1]):
        mean = 0.0
        if bias:
            for row in range(start, start + count):
                mean += (weights[row] if len(weights) else 1.0) * targets[row, target]
            mean /= weight
        total = 0.0
        for row in range(start, start + count):
            value = targets[row, target] - mean
            total += (weights[row] if len(weights) else 1.0) * value * value
        totals[target] = total
