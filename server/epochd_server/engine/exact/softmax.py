"""What Newton's method needs of a softmax model; see :mod:`.newton_kernel`.

As adding the same to all classes changes no probability, the second derivatives are singular; where the penalty does
not decide, coefficients that add up to 0 over the classes are the ones of smallest norm. Steps never leave them: they
start at 0, the gradient adds up to 0, and a constant added to the second derivatives of each column over all pairs of
classes makes them regular without meeting the gradient. They are factorised as L Lᵀ.
"""

from __future__ import annotations

import math

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.columns import fill
from epochd_server.engine.exact.newton_problem import (
    RECESSION,
    Array,
    Height,
    Problem,
    Work,
    add_penalty,
    margin_of,
    weight_of,
)
from epochd_server.engine.exact.triangles import BLOCK
from epochd_server.engine.exact.vectors import dot
from epochd_server.engine.numerics import exp, log


@kernel
def evaluate_softmax(problem: Problem, work: Work) -> Height:
    """Where ``trial`` is, and there the gradient and the second derivatives."""
    columns, end = len(work.scales), problem.start + problem.rows
    classes = len(work.trial) // columns
    work.second[:, :] = 0.0
    work.gradient[:] = 0.0
    loss, separates = 0.0, True
    for begin in range(problem.start, end, BLOCK):
        rows = min(BLOCK, end - begin)
        filled = fill(problem.features, begin, rows, problem.bias, work.scales, work.block)
        _combine(work.block, work.trial, columns, classes, filled, work.parts)
        for i in range(rows):
            weight = weight_of(problem, begin + i)
            lost, right = _row(work.parts, classes, i, problem.labels[begin + i], weight)
            loss += lost
            separates = separates and (right or weight == 0.0)
        _clear(work.parts, rows, filled)
        for i in range(len(work.gradient)):
            work.gradient[i] += dot(work.block, i % columns, work.parts, classes + i // columns, filled)
        _add_second(work.block, work.parts, classes, columns, filled, work.second)
    penalty = add_penalty(problem, work)
    for i in range(len(work.gradient)):
        j = i % columns
        if not (problem.spare and j == 0):
            work.second[i, i] += problem.l2 * work.scales[j] * work.scales[j]
    _fix_gauge(work.second, classes, columns)
    return Height(loss, penalty, separates)


@kernel
def step_softmax(work: Work) -> float:
    """Puts the step into ``step``; gives the decrease that it promises, twice, or a negative number without one.

    ``second`` becomes its factor L.
    """
    if not _factorise(work.second):
        return -1.0
    for i in range(len(work.step)):
        work.step[i] = -work.gradient[i]
    _solve(work.second, work.step)
    decrease = 0.0
    for i in range(len(work.step)):
        decrease -= work.step[i] * work.gradient[i]
    return max(decrease, 0.0)


@kernel
def recedes_softmax(problem: Problem, work: Work) -> bool:
    """Whether the objective falls for ever along ``step``: no row is against it, and some are for it."""
    columns, some = len(work.scales), False
    for row in range(problem.start, problem.start + problem.rows):
        if weight_of(problem, row) == 0.0:
            continue
        own = problem.labels[row] * columns
        for other in range(0, len(work.step), columns):
            margin, size = margin_of(problem, work, row, own, other)
            if margin < -RECESSION * size:
                return False
            some = some or margin > RECESSION * size
    return some


@kernel
def spread_softmax(work: Work, spreads: Array) -> None:
    """The diagonal of the pseudo-inverse [C, p]: that of the inverse, less what the added constants put there.

    ``second`` becomes its factor L, and ``step`` and ``trial`` are used up.
    """
    columns = len(work.scales)
    classes = len(work.step) // columns
    for j in range(columns):
        # The constant was the mean of the diagonal, which it doubled: half of the mean is left.
        work.trial[j] = 0.5 * _gauge(work.second, classes, columns, j)
    if not _factorise(work.second):
        return
    for place in range(len(work.step)):
        work.step[:] = 0.0
        work.step[place] = 1.0
        _solve(work.second, work.step)
        c, j = place // columns, place % columns
        spread = work.step[place] - 1.0 / (work.trial[j] * classes * classes)
        spreads[c, j] = spread * work.scales[j] * work.scales[j]


@kernel
def _combine(block: Array, solution: Array, columns: int, classes: int, filled: int, parts: Array) -> None:
    """A Θ of a block into the first rows of ``parts``."""
    for c in range(classes):
        for i in range(filled):
            parts[c, i] = 0.0
        for j in range(columns):
            factor = solution[c * columns + j]
            for i in range(filled):
                parts[c, i] += factor * block[j, i]


@kernel
def _clear(parts: Array, rows: int, filled: int) -> None:
    for row in range(parts.shape[0]):
        for i in range(rows, filled):
            parts[row, i] = 0.0


@kernel
def _row(parts: Array, classes: int, i: int, target: int, weight: float) -> tuple[float, bool]:
    """Turns a row's z into probabilities, and w (p − 1[y]) beside them; gives its loss and whether it is right."""
    peak, right = parts[target, i], True
    for c in range(classes):
        peak = max(peak, parts[c, i])
        right = right and (c == target or parts[c, i] < parts[target, i])
    others, own = 0.0, exp(parts[target, i] - peak)
    distance = peak - parts[target, i]
    for c in range(classes):
        parts[c, i] = exp(parts[c, i] - peak)
        if c != target:
            others += parts[c, i]
    total = own + others
    for c in range(classes):
        parts[c, i] /= total
        parts[classes + c, i] = weight * (parts[c, i] if c != target else -others / total)
    parts[2 * classes, i] = weight
    # ln(own + others) + distance; where own is the peak, ln(1 + others) keeps its digits
    return weight * (_log1p(others) if distance == 0.0 else log(total) + distance), right


@kernel
def _log1p(u: float) -> float:
    """ln(1 + u) for u ≥ 0 of any size."""
    total = 1.0 + u
    return log(total) + (u - (total - 1.0)) / total


@kernel
def _add_second(block: Array, parts: Array, classes: int, columns: int, filled: int, second: Array) -> None:
    """Adds Σ w p_c (1[c = e] − p_e) x xᵀ to the lower triangle."""
    scratch = block.shape[0] - 1
    for c in range(classes):
        for e in range(c + 1):
            for j in range(columns):
                for i in range(filled):
                    share = (1.0 if c == e else 0.0) - parts[e, i]
                    block[scratch, i] = parts[2 * classes, i] * parts[c, i] * share * block[j, i]
                for k in range(j + 1 if c == e else columns):
                    second[c * columns + j, e * columns + k] += dot(block, scratch, block, k, filled)


@kernel
def _fix_gauge(second: Array, classes: int, columns: int) -> None:
    """Adds each column's mean second derivative over all pairs of classes; see the module."""
    for j in range(columns):
        mean = _gauge(second, classes, columns, j)
        for c in range(classes):
            for e in range(c + 1):
                second[c * columns + j, e * columns + j] += mean


@kernel
def _gauge(second: Array, classes: int, columns: int, j: int) -> float:
    total = 0.0
    for c in range(classes):
        total += second[c * columns + j, c * columns + j]
    return total / classes


@kernel
def _factorise(second: Array) -> bool:
    """Replaces the lower triangle by L of L Lᵀ; False where it is not positive definite."""
    for j in range(len(second)):
        for k in range(j):
            total = second[j, k]
            for i in range(k):
                total -= second[j, i] * second[k, i]
            second[j, k] = total / second[k, k]
        total = second[j, j]
        for i in range(j):
            total -= second[j, i] * second[j, i]
        if not total > 0.0:
            return False
        second[j, j] = math.sqrt(total)
    return True


@kernel
def _solve(lower: Array, x: Array) -> None:
    """Replaces ``x`` by (L Lᵀ)⁻¹ x."""
    for i in range(len(x)):
        for k in range(i):
            x[i] -= lower[i, k] * x[k]
        x[i] /= lower[i, i]
    for i in range(len(x) - 1, -1, -1):
        x[i] /= lower[i, i]
        for k in range(i):
            x[k] -= lower[i, k] * x[i]
