"""What Newton's method needs of a logistic model; see :mod:`.newton_kernel`."""

from __future__ import annotations

import math

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.columns import fill, penalise
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
from epochd_server.engine.exact.triangles import BLOCK, absorb, solve_lower, solve_upper
from epochd_server.engine.exact.vectors import dot
from epochd_server.engine.numerics import sigmoid, softplus


@kernel
def evaluate_logistic(problem: Problem, work: Work) -> Height:
    """Where ``trial`` is, and there the gradient and the factor of the second derivatives."""
    work.factor[:, :] = 0.0
    work.gradient[:] = 0.0
    columns, end = len(work.scales), problem.start + problem.rows
    loss, separates = 0.0, True
    for begin in range(problem.start, end, BLOCK):
        rows = min(BLOCK, end - begin)
        filled = fill(problem.features, begin, rows, problem.bias, work.scales, work.block)
        _combine(work.block, work.trial, filled, work.parts[0])
        lost, right = _judge(problem, begin, rows, filled, work.parts)
        loss += lost
        separates = separates and right
        for j in range(columns):
            work.gradient[j] += dot(work.block, j, work.parts, 1, filled)
            for i in range(filled):
                work.block[j, i] *= work.parts[0, i]
        absorb(work.factor, work.block, columns, filled)
    penalty = add_penalty(problem, work)
    penalise(problem.l2, problem.spare, work.scales, work.factor, work.block)
    return Height(loss, penalty, separates)


@kernel
def step_logistic(work: Work) -> float:
    """Puts −R⁻¹ R⁻ᵀ g into ``step``; gives the decrease that it promises, twice."""
    columns, decrease = len(work.step), 0.0
    for j in range(columns):
        work.step[j] = -work.gradient[j]
    solve_lower(work.factor, columns, work.step)
    for j in range(columns):
        decrease += work.step[j] * work.step[j]
    solve_upper(work.factor, columns, work.step)
    return decrease


@kernel
def recedes_logistic(problem: Problem, work: Work) -> bool:
    """Whether the objective falls for ever along ``step``: no row is against it, and some are for it."""
    some = False
    for row in range(problem.start, problem.start + problem.rows):
        if weight_of(problem, row) == 0.0:
            continue
        margin, size = margin_of(problem, work, row, 0, -1)
        if problem.labels[row] == 0:
            margin = -margin
        if margin < -RECESSION * size:
            return False
        some = some or margin > RECESSION * size
    return some


@kernel
def _combine(block: Array, solution: Array, filled: int, out: Array) -> None:
    """``out`` = A β of a block."""
    for i in range(filled):
        out[i] = 0.0
    for j in range(len(solution)):
        factor = solution[j]
        for i in range(filled):
            out[i] += factor * block[j, i]


@kernel
def _judge(problem: Problem, begin: int, rows: int, filled: int, parts: Array) -> tuple[float, bool]:
    """Turns A β of rows into the roots of their second derivatives, with the first beside them; gives their loss."""
    loss, separates = 0.0, True
    for i in range(rows):
        weight = weight_of(problem, begin + i)
        sign = 1.0 if problem.labels[begin + i] == 1 else -1.0
        margin = sign * parts[0, i]
        loss += weight * softplus(-margin)
        separates = separates and (margin > 0.0 or weight == 0.0)
        wrong = sigmoid(-margin)
        parts[1, i] = -sign * weight * wrong
        parts[0, i] = math.sqrt(weight * wrong * sigmoid(margin))
    for i in range(rows, filled):
        parts[0, i], parts[1, i] = 0.0, 0.0
    return loss, separates
