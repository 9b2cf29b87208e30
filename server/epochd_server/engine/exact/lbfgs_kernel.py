"""L-BFGS of many members, one after the other.

What is minimised is (Σ w loss + l2/2 ‖weights‖²) / Σ w. Directions come from the two-loop recursion (Nocedal and
Wright, "Numerical Optimization", algorithm 7.4); steps satisfy the weak conditions of Wolfe, found by bisection (Lewis
and Overton, "Nonsmooth optimization via quasi-Newton methods", 2013), and near the optimum, where values no longer
differ, by their slopes alone (Hager and Zhang, 2005).

Legend: M members, P parameters, h remembered updates, T iterations of a call.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.network import Blocks, Data, Network, evaluate

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

RUNNING, CONVERGED, STALLED, EXHAUSTED, DIVERGED, SEPARABLE = range(6)
"""States: there is more to do; at the optimum; no step leads down any more; out of iterations; not finite any more;
no finite optimum."""

LOSS, STEP, TRACE = 0, 1, 2
"""Columns of ``trace``: the mean loss before an iteration's update, and the update's length."""

TRIALS = 60
"""Steps that are tried in an iteration, at most."""
SUFFICIENT, CURVATURE = 1e-4, 0.9
NOISE = 1e-14
"""Differences of values, as a part of them, that rounding may have made."""


class Rules(NamedTuple):
    """How members are fitted."""

    l2: float
    tolerance: float
    most: int
    budget: int
    """Iterations of each member in one call, at most."""
    convex: bool
    """Whether separable classes have no finite optimum: linear classifiers without a penalty."""


class Found(NamedTuple):
    """What is known of M members, in and out."""

    parameters: Array
    """[M, P]"""
    gradients: Array
    """[M, P] of the objective."""
    steps: Array
    """[M, h, P] updates of the parameters; the newest is at iterations − 1 modulo h."""
    changes: Array
    """[M, h, P] what they changed of the gradient."""
    kept: Integers
    """[M] updates that are remembered."""
    iterations: Integers
    """[M]"""
    states: Integers
    """[M]"""
    losses: Array
    """[M] mean losses."""
    trace: Array
    """[M, T, TRACE] of this call."""
    snapshots: Array
    """[M, T, P] parameters after the iterations of this call; or [M, 0, P] where nobody wants them."""


class Work(NamedTuple):
    """Space: [P] each, [h] the last."""

    direction: Array
    trial: Array
    slope: Array
    shares: Array


@kernel
def advance_member(
    network: Network, data: Data, blocks: Blocks, rules: Rules, member: int, found: Found, work: Work
) -> None:
    """Makes iterations with a RUNNING member, until its state changes or the budget is spent."""
    total = _total(data)
    parameters, gradient = found.parameters[member], found.gradients[member]
    loss, separates = evaluate(network, data, blocks, parameters, gradient)
    height = _penalise(network, rules, total, loss, parameters, gradient)
    for made in range(rules.budget + 1):
        found.losses[member] = loss / total
        found.states[member] = _state(rules, found.iterations[member], height, separates, gradient)
        if found.states[member] != RUNNING or made == rules.budget:
            return
        fall = _direct(found, member, work)
        if not fall < 0.0:
            found.kept[member] = 0  # what is remembered misleads: steepest descent instead
            fall = _direct(found, member, work)
        found.trace[member, made, LOSS] = loss / total
        first = found.kept[member] == 0
        length = 1.0 / max(1.0, math.sqrt(-fall)) if first else 1.0
        length, loss, height, separates = _search(
            network, data, blocks, rules, total, height, fall, length, parameters, work
        )
        if length == 0.0:
            found.states[member] = STALLED
            return
        found.trace[member, made, STEP] = length
        _remember(found, member, work)
        if found.snapshots.shape[1] > 0:
            _copy(parameters, found.snapshots[member, made])
        found.iterations[member] += 1


@kernel
def _total(data: Data) -> float:
    if not len(data.weights):
        return float(data.rows)
    total = 0.0
    for row in range(data.start, data.start + data.rows):
        total += data.weights[row]
    return total


@kernel
def _penalise(
    network: Network, rules: Rules, total: float, loss: float, parameters: Array, gradient: Array
) -> float:
    """Makes gradient that of the objective; gives the objective."""
    height = loss
    for i in range(len(parameters)):
        slope = rules.l2 * network.penalised[i] * parameters[i]
        gradient[i] = (gradient[i] + slope) / total
        height += 0.5 * slope * parameters[i]
    return height / total


@kernel
def _state(rules: Rules, iteration: int, height: float, separates: bool, gradient: Array) -> int:
    if not math.isfinite(height):
        return DIVERGED
    if rules.convex and separates:
        return SEPARABLE
    steepest = 0.0
    for i in range(len(gradient)):
        steepest = max(steepest, abs(gradient[i]))
    if steepest <= rules.tolerance:
        return CONVERGED
    return EXHAUSTED if iteration >= rules.most else RUNNING


@kernel
def _direct(found: Found, member: int, work: Work) -> float:
    """Puts the direction into ``work``; gives the objective's slope along it."""
    history, kept = found.steps.shape[1], found.kept[member]
    newest = found.iterations[member] - 1
    _copy(found.gradients[member], work.direction)
    for age in range(kept):
        k = (newest - age) % history
        change, step = found.changes[member, k], found.steps[member, k]
        work.shares[k] = _product(step, work.direction) / _product(step, change)
        _add(work.direction, -work.shares[k], change)
    if kept > 0:
        change = found.changes[member, newest % history]
        scale = _product(found.steps[member, newest % history], change) / _product(change, change)
        for i in range(len(work.direction)):
            work.direction[i] *= scale
    for age in range(kept - 1, -1, -1):
        k = (newest - age) % history
        change, step = found.changes[member, k], found.steps[member, k]
        share = work.shares[k] - _product(change, work.direction) / _product(step, change)
        _add(work.direction, share, step)
    for i in range(len(work.direction)):
        work.direction[i] = -work.direction[i]
    return _product(work.direction, found.gradients[member])


@kernel
def _search(
    network: Network,
    data: Data,
    blocks: Blocks,
    rules: Rules,
    total: float,
    height: float,
    fall: float,
    length: float,
    parameters: Array,
    work: Work,
) -> tuple[float, float, float, bool]:
    """Finds a step into ``trial`` and ``slope``; gives its length (0: there is none), loss, height and separation."""
    low, high = 0.0, math.inf
    for _ in range(TRIALS):
        for i in range(len(parameters)):
            work.trial[i] = parameters[i] + length * work.direction[i]
        loss, separates = evaluate(network, data, blocks, work.trial, work.slope)
        new = _penalise(network, rules, total, loss, work.trial, work.slope)
        rise = _product(work.slope, work.direction)
        level = new <= height + NOISE * abs(height) and rise <= (2.0 * SUFFICIENT - 1.0) * fall
        if not (new <= height + SUFFICIENT * length * fall or level):
            high = length
        elif rise < CURVATURE * fall:
            low = length
        else:
            return length, loss, new, separates
        length = 0.5 * (low + high) if high < math.inf else 2.0 * low
    return 0.0, 0.0, height, False


@kernel
def _remember(found: Found, member: int, work: Work) -> None:
    """Moves to ``trial`` and remembers how."""
    parameters, gradient = found.parameters[member], found.gradients[member]
    k = found.iterations[member] % found.steps.shape[1]
    for i in range(len(parameters)):
        found.steps[member, k, i] = work.trial[i] - parameters[i]
        found.changes[member, k, i] = work.slope[i] - gradient[i]
    _copy(work.trial, parameters)
    _copy(work.slope, gradient)
    found.kept[member] = min(found.kept[member] + 1, found.steps.shape[1])
    if not _product(found.steps[member, k], found.changes[member, k]) > 0.0:
        found.kept[member] = 0


@kernel
def _product(a: Array, b: Array) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel
def _add(target: Array, factor: float, source: Array) -> None:
    for i in range(len(target)):
        target[i] += factor * source[i]


@kernel
def _copy(source: Array, target: Array) -> None:
    for i in range(len(source)):
        target[i] = source[i]
