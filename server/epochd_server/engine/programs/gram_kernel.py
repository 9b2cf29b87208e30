"""Full-batch least squares by gradient descent, through the Gram matrix instead of the rows.

With X the rows (and a 1 for the bias), w the rows' weights and θ a target's parameters, the gradient of the mean
squared error is 2 (A θ − c) / (Σw · t), where A = Xᵀ diag(w) X and c = Xᵀ diag(w) y do not change. An epoch then
costs (d + 1)² products for each target, however many rows there are. All of it is float64: the trajectory is that
of a float64 loop to rounding. A loss is computed from the rows, in the epochs that are logged only: from A it would
lose digits once it is small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.optimizers import Method
from epochd_server.engine.programs.lane_epochs import (
    end_if_due,
    find_blemishes,
    keep_snapshot,
    set_rates,
    take_step,
)
from epochd_server.engine.programs.lane_products import add_products
from epochd_server.engine.programs.lane_state import Record, State
from epochd_server.engine.task import Floats, Integers


class Problem(NamedTuple):
    """The rows of a block's lanes, and what does not change. d features, t targets, q = d (+ 1 with a bias)."""

    features: Floats
    """[N, d]"""
    targets: Floats
    """[N, t]"""
    weights: Floats
    """[N], or empty for weights of 1."""
    starts: Integers
    """[L]"""
    counts: Integers
    """[L]"""
    gram: NDArray[np.float64]
    """[q · q, L] A"""
    moments: NDArray[np.float64]
    """[t · q, L] −c"""
    total_weight: NDArray[np.float64]
    """[L] Σw"""
    bias: bool


class Work(NamedTuple):
    """Space that a block uses again and again."""

    gradients: NDArray[np.float64]
    scales: NDArray[np.float64]
    norms: NDArray[np.float64]
    """[L]"""
    blemish: NDArray[np.float64]
    """[L]"""
    vector: NDArray[np.float64]
    """[max(P, q · q)]"""


@kernel
def run_gram_epochs(
    problem: Problem,
    state: State,
    work: Work,
    record: Record,
    method: Method,
    largest: float,
    first_epoch: int,
    epochs: int,
) -> int:
    """Runs epochs of all lanes that are alive; returns how many, fewer once none is.

    Args:
        problem: Filled by :func:`fill_problem`.
        state: float64.
        work: Scratch.
        record: Is filled.
        method: How steps are made.
        largest: The largest finite number of the task's precision; beyond it a member has diverged.
        first_epoch: The first one.
        epochs: How many.
    """
    for offset in range(epochs):
        epoch = first_epoch + offset
        set_rates(state, record, offset)
        for lane in range(len(state.alive)):
            if record.wanted[offset, lane] and state.alive[lane]:
                record.losses[offset, lane] = _loss(problem, state.parameters, work.vector, lane)
            else:
                record.losses[offset, lane] = 0.0
        _gradient(problem, state.parameters, work.gradients)
        take_step(method, state, work.gradients, work.scales, work.norms, state.alive)
        if record.snapshot_of[offset] >= 0:
            keep_snapshot(state.parameters, record.snapshots, record.snapshot_of[offset])
        if not _close_epoch(state, work.blemish, record.losses[offset], largest, epoch):
            return offset + 1
    return epochs


@kernel
def _gradient(problem: Problem, parameters: Floats, gradients: NDArray[np.float64]) -> None:
    width, count = problem.features.shape[1], problem.targets.shape[1]
    lanes = parameters.shape[1]
    q = width + problem.bias
    for t in range(count):
        for i in range(q):
            g = t * width + i if i < width else count * width + t
            for lane in range(lanes):
                gradients[g, lane] = problem.moments[t * q + i, lane]
            add_products(gradients, g, problem.gram, i * q, 1, parameters, t * width, 1, width)
            if problem.bias:
                add_products(
                    gradients, g, problem.gram, i * q + width, 1, parameters, count * width + t, 1, 1
                )
            for lane in range(lanes):
                gradients[g, lane] *= 2.0 / (problem.total_weight[lane] * count)


@kernel
def _loss(problem: Problem, parameters: Floats, vector: NDArray[np.float64], lane: int) -> float:
    """The mean squared error of one lane, from its rows."""
    width, count = problem.features.shape[1], problem.targets.shape[1]
    for p in range(parameters.shape[0]):
        vector[p] = parameters[p, lane]
    total = np.float64(0.0)
    for row in range(problem.starts[lane], problem.starts[lane] + problem.counts[lane]):
        for t in range(count):
            residual = (vector[count * width + t] if problem.bias else 0.0) - problem.targets[row, t]
            for i in range(width):
                residual += vector[t * width + i] * problem.features[row, i]
            weight = 1.0 if len(problem.weights) == 0 else np.float64(problem.weights[row])
            total += weight * residual * residual
    mean: float = total / (problem.total_weight[lane] * count)
    return mean


@kernel
def _close_epoch(
    state: State, blemish: NDArray[np.float64], losses: NDArray[np.float64], largest: float, epoch: int
) -> bool:
    find_blemishes(state.parameters, blemish)
    for p in range(state.parameters.shape[0]):
        for lane in range(len(blemish)):
            beyond = abs(state.parameters[p, lane]) > largest
            blemish[lane] = np.nan if beyond else blemish[lane]
    any_alive = False
    for lane in range(len(state.alive)):
        if state.alive[lane]:
            healthy = blemish[lane] == 0.0 and abs(losses[lane]) <= largest
            any_alive |= not end_if_due(state, lane, epoch, healthy)
    return any_alive


@kernel
def fill_problem(problem: Problem, vector: NDArray[np.float64]) -> None:
    """Sums A, −c and Σw of every lane over its rows, from the first to the last.

    Args:
        problem: Its last three arrays are filled.
        vector: [≥ q · q], scratch.
    """
    for lane in range(len(problem.counts)):
        _fill_lane(problem, vector, lane)


@kernel
def _fill_lane(problem: Problem, vector: NDArray[np.float64], lane: int) -> None:
    width, count = problem.features.shape[1], problem.targets.shape[1]
    q = width + problem.bias
    vector[: q * q] = 0.0
    problem.moments[:, lane] = 0.0
    total = 0.0
    for row in range(problem.starts[lane], problem.starts[lane] + problem.counts[lane]):
        weight = 1.0 if len(problem.weights) == 0 else np.float64(problem.weights[row])
        total += weight
        for i in range(q):
            left = weight * (np.float64(problem.features[row, i]) if i < width else 1.0)
            for j in range(width):
                vector[i * q + j] += left * problem.features[row, j]
            if problem.bias:
                vector[i * q + width] += left
            for t in range(count):
                problem.moments[t * q + i, lane] -= left * problem.targets[row, t]
    for k in range(q * q):
        problem.gram[k, lane] = vector[k]
    problem.total_weight[lane] = total
