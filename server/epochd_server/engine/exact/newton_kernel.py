"""Logistic and softmax regression of many members by Newton's method, one after the other.

The objective is Σ w loss + l2/2 ‖weights‖². A logistic iteration is a weighted least squares problem, whose triangular
factor R comes from Householder reflections of √(w p (1 − p)) A with √l2 · I below: the step is −R⁻¹ R⁻ᵀ g. A softmax
iteration solves with the second derivatives. Steps are halved until they lead down; columns are scaled by powers of 2.

Without a penalty there is no finite optimum where the classes are separable. That is certain where all rows are on
their side, and where along some direction no row moves to the other side and some move further to their own (Albert
and Anderson, "On the existence of maximum likelihood estimates in logistic regression models", 1984): Newton's steps
turn into such a direction if there is one.

Legend: N rows, d features, M members, p = d + bias coefficients of one output, the bias first, C outputs (1 of a
logistic model), T iterations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.columns import (
    CONDITION,
    WEIGHT,
    fill,
    rank_limit,
    scale_columns,
    weigh,
)
from epochd_server.engine.exact.logistic import evaluate_logistic, recedes_logistic, step_logistic
from epochd_server.engine.exact.newton_problem import (
    Array,
    Height,
    Integers,
    Problem,
    Work,
    has_all_classes,
    weight_of,
)
from epochd_server.engine.exact.softmax import (
    evaluate_softmax,
    recedes_softmax,
    spread_softmax,
    step_softmax,
)
from epochd_server.engine.exact.triangles import BLOCK, absorb, condition, invert
from epochd_server.engine.numerics import log

RUNNING, CONVERGED, DEFICIENT, SEPARABLE, EXHAUSTED = 0, 1, 2, 3, 4
"""States: there is more to do; at the optimum; features depend on each other; no finite optimum; out of iterations."""

LOSS, STEP, TRACE = 0, 1, 2
"""Columns of ``trace``: the weighted sum of losses before an iteration's update, and the update's length."""

HALVINGS = 40
"""Of a step that does not lead down, at most."""
SUFFICIENT = 1e-4
"""Part of the decrease promised by the gradient that a step must make (Armijo's rule)."""
CERTAIN = 1e-9
"""A decrease, as a part of the objective, below which a step is taken as it is: rounding would hide it."""
FIRST_DOUBT = 5
"""Iterations before a step is looked at as a direction without end."""


class Rows(NamedTuple):
    """The rows of all members, and whose they are."""

    features: Array
    """[N, d]"""
    labels: Integers
    """[N] classes, from 0."""
    weights: Array
    """[N], or [0] where every row counts alike."""
    starts: Integers
    """[M] first rows."""
    counts: Integers
    """[M] numbers of rows."""


class Rules(NamedTuple):
    """How members are fitted."""

    bias: bool
    l2: float
    spare: bool
    """Whether there is a bias that the penalty does not count."""
    tolerance: float
    """Predicted decrease, as a part of the objective, of the last step."""
    most: int
    """Iterations at most."""
    budget: int
    """Iterations of each member in one call, at most."""


class Found(NamedTuple):
    """What is found of M members; the first three go in and out."""

    coefficients: Array
    """[M, C, p]; zeros at first."""
    iterations: Integers
    """[M] those made."""
    states: Integers
    """[M]; RUNNING at first."""
    losses: Array
    """[M] weighted sums of losses at the coefficients."""
    nulls: Array
    """[M] the same where only the frequencies of the classes are known."""
    spreads: Array
    """[M, C, p] the diagonal of the (pseudo-)inverse of the second derivatives."""
    facts: Array
    """[M, :data:`.columns.FACTS`]"""
    trace: Array
    """[M, T, TRACE]"""
    snapshots: Array
    """[M, T, C p] coefficients after each iteration; [M, 0, C p] where nobody wants them."""


@kernel
def fit_newton_members(rows: Rows, rules: Rules, found: Found, work: Work) -> None:
    """Fits members that are RUNNING, or goes on with them."""
    for member in range(len(rows.starts)):
        if found.states[member] != RUNNING:
            continue
        problem = Problem(
            rows.features, rows.labels, rows.weights, rows.starts[member], rows.counts[member],
            rules.bias, rules.l2, rules.spare,
        )  # fmt: skip
        if found.iterations[member] == 0:
            found.states[member] = _prepare(problem, member, found, work)
        if found.states[member] == RUNNING:
            scale_columns(rows.features, rows.weights, problem.start, problem.rows, rules.bias, work.scales)
            _load(member, found, work)
            found.losses[member] = _iterate(problem, rules, member, found, work)
            _store(rules, member, found, work)


@kernel
def _prepare(problem: Problem, member: int, found: Found, work: Work) -> int:
    """Notes what is known of a member before its first iteration; gives its state."""
    start, count, classes = problem.start, problem.rows, max(found.coefficients.shape[1], 2)
    weigh(problem.weights, start, count, found.facts[member])
    scale_columns(problem.features, problem.weights, start, count, problem.bias, work.scales)
    found.nulls[member] = _null_loss(problem, classes, found.facts[member, WEIGHT])
    number = _condition(problem, work)
    found.facts[member, CONDITION] = number
    if problem.l2 == 0.0 and not number < rank_limit(count, len(work.scales)):
        return DEFICIENT
    if (problem.l2 == 0.0 or problem.spare) and not has_all_classes(problem, classes):
        return SEPARABLE
    return RUNNING


@kernel
def _condition(problem: Problem, work: Work) -> float:
    """The condition number of the weighted features; infinite where some are determined by others."""
    columns, end = len(work.scales), problem.start + problem.rows
    work.factor[:, :] = 0.0
    for begin in range(problem.start, end, BLOCK):
        rows = min(BLOCK, end - begin)
        filled = fill(problem.features, begin, rows, problem.bias, work.scales, work.block)
        for i in range(rows):
            root = math.sqrt(weight_of(problem, begin + i))
            for j in range(columns):
                work.block[j, i] *= root
        absorb(work.factor, work.block, columns, filled)
    if not invert(work.factor, columns, work.inverse):
        return math.inf
    return condition(work.factor, work.inverse, columns)


@kernel
def _null_loss(problem: Problem, classes: int, total: float) -> float:
    if not problem.bias:
        return total * math.log(float(classes))
    loss = 0.0
    for c in range(classes):
        part = 0.0
        for row in range(problem.start, problem.start + problem.rows):
            if problem.labels[row] == c:
                part += weight_of(problem, row)
        if part > 0.0:
            loss -= part * log(part / total)
    return loss


@kernel
def _iterate(problem: Problem, rules: Rules, member: int, found: Found, work: Work) -> float:
    """Makes iterations until the member's state is no more RUNNING or the budget is spent; gives the loss."""
    _copy(work.solution, work.trial)
    height = _evaluate(problem, work)
    for made in range(rules.budget + 1):
        decrease = step_softmax(work) if len(work.second) else _step_logistic(work)
        iteration = found.iterations[member]
        found.states[member] = _state(problem, rules, iteration, height, decrease, work)
        if found.states[member] != RUNNING or made == rules.budget:
            break
        last = decrease <= rules.tolerance * (height.loss + height.penalty)
        found.trace[member, iteration, LOSS] = height.loss
        height, length = _descend(problem, height, decrease, last, work)
        found.trace[member, iteration, STEP] = length
        found.iterations[member] += 1
        _copy(work.trial, work.solution)
        if found.snapshots.shape[1] > 0:
            for i in range(len(work.solution)):
                found.snapshots[member, iteration, i] = work.solution[i] * work.scales[i % len(work.scales)]
        if last:
            found.states[member] = CONVERGED
            break
    return height.loss


@kernel
def _evaluate(problem: Problem, work: Work) -> Height:
    return evaluate_softmax(problem, work) if len(work.second) else evaluate_logistic(problem, work)


@kernel
def _step_logistic(work: Work) -> float:
    for j in range(len(work.scales)):
        if work.factor[j, j] == 0.0:
            return -1.0
    return step_logistic(work)


@kernel
def _state(
    problem: Problem, rules: Rules, iteration: int, height: Height, decrease: float, work: Work
) -> int:
    """Whether a member may go on; a negative or undefined decrease is a step that could not be found."""
    if not decrease >= 0.0:
        return SEPARABLE if problem.l2 == 0.0 else EXHAUSTED
    if problem.l2 == 0.0 and (height.separates or (iteration >= FIRST_DOUBT and _recedes(problem, work))):
        return SEPARABLE
    return EXHAUSTED if iteration >= rules.most else RUNNING


@kernel
def _recedes(problem: Problem, work: Work) -> bool:
    return recedes_softmax(problem, work) if len(work.second) else recedes_logistic(problem, work)


@kernel
def _descend(
    problem: Problem, height: Height, decrease: float, last: bool, work: Work
) -> tuple[Height, float]:
    """Goes along the step into ``trial``, as far as it leads down; gives where that is, and the part of the step."""
    objective, length, new = height.loss + height.penalty, 1.0, height
    for _ in range(HALVINGS):
        for i in range(len(work.trial)):
            work.trial[i] = work.solution[i] + length * work.step[i]
        new = _evaluate(problem, work)
        if last or decrease <= CERTAIN * objective:
            break
        if new.loss + new.penalty <= objective - SUFFICIENT * length * decrease:
            break
        length *= 0.5
    return new, length


@kernel
def _load(member: int, found: Found, work: Work) -> None:
    columns = len(work.scales)
    for i in range(len(work.solution)):
        c, j = i // columns, i % columns
        work.solution[i] = found.coefficients[member, c, j] / work.scales[j]


@kernel
def _store(rules: Rules, member: int, found: Found, work: Work) -> None:
    columns = len(work.scales)
    for i in range(len(work.solution)):
        c, j = i // columns, i % columns
        found.coefficients[member, c, j] = work.solution[i] * work.scales[j]
    if found.states[member] != CONVERGED or rules.l2 > 0.0:
        return
    if len(work.second):
        spread_softmax(work, found.spreads[member])
    elif invert(work.factor, columns, work.inverse):
        for j in range(columns):
            total = 0.0
            for k in range(j, columns):
                total += work.inverse[j, k] * work.inverse[j, k]
            found.spreads[member, 0, j] = total * work.scales[j] * work.scales[j]


@kernel
def _copy(source: Array, target: Array) -> None:
    for i in range(len(source)):
        target[i] = source[i]
