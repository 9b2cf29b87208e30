"""One member's problem, and the space to solve it in, as Newton's kernels hand them on.

Legend: N rows, d features, p = d + bias coefficients of one output, the bias first, C outputs (1 of a logistic model),
q = C p.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

RECESSION = 1e-9
"""How far below 0 a margin may be, as a part of its terms, and count as 0."""


class Problem(NamedTuple):
    """What is minimised: Σ w loss + l2/2 ‖weights‖²."""

    features: Array
    """[N, d]"""
    labels: Integers
    """[N] classes, from 0."""
    weights: Array
    """[N], or [0] where every row counts alike."""
    start: int
    """The member's first row."""
    rows: int
    """Its rows."""
    bias: bool
    l2: float
    spare: bool
    """Whether there is a bias that the penalty does not count."""


class Work(NamedTuple):
    """Space that is used for each member again."""

    factor: Array
    """[p, p] the triangle of the weighted columns."""
    inverse: Array
    """[p, p] its inverse."""
    block: Array
    """[p + 1, BLOCK] columns of a block of rows, and one more."""
    scales: Array
    """[p] what the columns are multiplied by."""
    solution: Array
    """[q] in scaled columns; so are gradient, step and trial."""
    gradient: Array
    step: Array
    trial: Array
    parts: Array
    """[2 C + 1, BLOCK] what is known of a block's rows."""
    second: Array
    """[q, q] second derivatives of a softmax model; [0, 0] of a logistic one."""


class Height(NamedTuple):
    """Where a solution is."""

    loss: float
    """Σ w loss."""
    penalty: float
    separates: bool
    """Whether all rows are on their side."""


@kernel
def weight_of(problem: Problem, row: int) -> float:
    """How much a row counts."""
    return problem.weights[row] if len(problem.weights) else 1.0


@kernel
def has_all_classes(problem: Problem, classes: int) -> bool:
    """Whether each class has a row that counts: the constant of one that has none falls for ever."""
    for c in range(classes):
        found = False
        for row in range(problem.start, problem.start + problem.rows):
            found = found or (problem.labels[row] == c and weight_of(problem, row) > 0.0)
        if not found:
            return False
    return True


@kernel
def add_penalty(problem: Problem, work: Work) -> float:
    """Adds the penalty's slope at ``trial`` to the gradient; gives the penalty."""
    columns, penalty = len(work.scales), 0.0
    for i in range(len(work.trial)):
        j = i % columns
        if not (problem.spare and j == 0):
            slope = problem.l2 * work.scales[j] * work.scales[j] * work.trial[i]
            work.gradient[i] += slope
            penalty += 0.5 * slope * work.trial[i]
    return penalty


@kernel
def margin_of(problem: Problem, work: Work, row: int, ahead: int, behind: int) -> tuple[float, float]:
    """How much farther ``step`` takes a row on the output at ``ahead`` than on that at ``behind``, and Σ |terms|.

    Args:
        problem: The problem.
        work: Holds the step.
        row: The row.
        ahead: Where an output's coefficients begin in the step.
        behind: The same of another, or −1 for one that stays at 0.
    """
    first, step = 1 if problem.bias else 0, work.step
    margin, size = 0.0, 0.0
    for j in range(len(work.scales)):
        value = problem.features[row, j - first] if j >= first else 1.0
        own, other = step[ahead + j], step[behind + j] if behind >= 0 else 0.0
        margin += value * work.scales[j] * (own - other)
        size += abs(value * work.scales[j]) * (abs(own) + abs(other))
    return margin, size
