"""Least squares over members: the kernel in slices, and what is done where the rank is deficient.

Legend: M members of a slice, d features, t targets, p = d + bias coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epochd_server.domain.exact_fits import LeastSquaresFit, RankRule
from epochd_server.engine.exact import columns
from epochd_server.engine.exact import least_squares_kernel as kernel
from epochd_server.engine.exact.minimum_norm import matrix_rank, minimum_norm
from epochd_server.engine.exact.reporting import ExactReporter
from epochd_server.engine.exact.slicing import bias_last, flat_parameters, slices, without_stopped
from epochd_server.engine.exact.task import Doubles, ExactRows, ExactTask, exact_rows
from epochd_server.engine.exact.triangles import BLOCK
from epochd_server.engine.task import Integers, MemberState


@dataclass(slots=True, eq=False)
class _Solved:
    """What the kernel found of M members; see there for the columns."""

    coefficients: Doubles
    spreads: Doubles
    residuals: Doubles
    totals: Doubles
    facts: Doubles
    states: Integers
    ranks: Doubles


class _Solver:
    """Runs the kernel.

    Args:
        fit: The penalty.
        bias: Whether there is a constant.
        rows: The members' rows.
    """

    def __init__(self, fit: LeastSquaresFit, bias: bool, rows: ExactRows) -> None:
        self.fit, self.bias, self.rows = fit, bias, rows
        self.columns = rows.features.shape[1] + bias
        self.targets = rows.targets.shape[1]
        self.factor = np.zeros((self.columns, self.columns + self.targets))
        self.scales = np.zeros(self.columns)
        self._work = (
            np.zeros((self.columns, self.columns)),
            np.zeros((self.columns + self.targets, BLOCK)),
            self.scales,
            np.zeros((self.targets, self.columns)),
            np.zeros((self.targets, 2, self.columns)),
            np.zeros((2, BLOCK)),
        )

    def solve(self, members: Integers) -> _Solved:
        """Fits members; of the last one ``factor`` and ``scales`` are left behind."""
        count = len(members)
        solved = _Solved(
            coefficients=np.full((count, self.targets, self.columns), np.nan),
            spreads=np.full((count, self.columns), np.nan),
            residuals=np.full((count, self.targets), np.nan),
            totals=np.full((count, self.targets), np.nan),
            facts=np.zeros((count, columns.FACTS)),
            states=np.zeros(count, np.int64),
            ranks=np.full(count, float(self.columns)),
        )
        rows, fit = self.rows, self.fit
        kernel.fit_members(
            rows.features, rows.numbers, rows.weights, rows.starts[members], rows.counts[members],
            self.bias, float(fit.l2), fit.penalize_bias,
            solved.coefficients, solved.spreads, solved.residuals, solved.totals, solved.facts, solved.states,
            self.factor, *self._work,
        )  # fmt: skip
        return solved


def fit_least_squares(task: ExactTask, fit: LeastSquaresFit, bias: bool, reporter: ExactReporter) -> None:
    """Fits every member of a task.

    Args:
        task: A linear model with mse.
        fit: How.
        bias: Whether the model has one.
        reporter: Is told of each member.
    """
    rows = exact_rows(task)
    solver = _Solver(fit, bias, rows)
    costs = rows.counts * float(4 * solver.columns * (solver.columns + solver.targets)) + solver.columns**3
    for slice_members in slices(costs):
        members = without_stopped(slice_members, solver.columns * solver.targets, reporter)
        if len(members):
            _report(members, _solve(solver, members), solver, reporter)


def _solve(solver: _Solver, members: Integers) -> _Solved:
    solved = solver.solve(members)
    for position in np.flatnonzero(solved.states == kernel.DEFICIENT).tolist():
        _resolve_deficient(solver, solved, position, members[position : position + 1])
    return solved


def _resolve_deficient(solver: _Solver, solved: _Solved, position: int, member: Integers) -> None:
    """Finds the rank of a member and, where that is asked for, its solution of smallest norm."""
    solver.solve(member)
    rows, count = solver.rows, int(solver.rows.counts[member[0]])
    limit = columns.rank_limit(count, solver.columns)
    triangle = solver.factor[:, : solver.columns]
    solved.ranks[position] = matrix_rank(triangle, limit)
    if solver.fit.rank is RankRule.REFUSE:
        return
    right = solver.factor[:, solver.columns :]
    coefficients = minimum_norm(triangle, right, solver.scales, solver.bias, limit)
    own = slice(int(rows.starts[member[0]]), int(rows.starts[member[0]]) + count)
    weights = rows.weights[own] if len(rows.weights) else np.ones(count)
    targets = rows.targets[own].astype(np.float64)
    outputs = rows.features[own] @ coefficients[:, solver.bias :].T
    mean = (weights @ targets) / weights.sum() if solver.bias else 0.0
    if solver.bias:
        outputs = outputs + coefficients[:, 0]
    solved.coefficients[position] = coefficients
    solved.residuals[position] = weights @ (targets - outputs) ** 2
    solved.totals[position] = weights @ (targets - mean) ** 2
    solved.states[position] = kernel.SOLVED


def _report(members: Integers, solved: _Solved, solver: _Solver, reporter: ExactReporter) -> None:
    count = len(members)
    losses = (solved.residuals / solved.facts[:, columns.WEIGHT, None]).mean(1)
    flat = flat_parameters(solved.coefficients, solver.bias)
    failed = solved.states == kernel.DEFICIENT
    states = np.where(failed, MemberState.RANK_DEFICIENT, MemberState.FINISHED).astype(np.int64)
    good = np.flatnonzero(~failed)
    first = np.zeros(count, np.int64)
    reporter.log(
        members[good],
        first[good],
        losses[good],
        np.ones(len(good)),
        flat[good] if reporter.logs_parameters else None,
    )
    reporter.end(members, states, first + ~failed, losses, flat, _statistics(solved, solver))


def _statistics(solved: _Solved, solver: _Solver) -> dict[str, Doubles]:
    """What the statistics of the fits come from; see :mod:`epochd_server.domain.statistics`."""
    rows = solved.facts[:, columns.ROWS]
    free = rows - solved.ranks
    errors = np.full_like(solved.coefficients, np.nan)
    known = (solved.ranks == solver.columns) & (free > 0)
    if solver.fit.l2 == 0.0:
        sigma = np.sqrt(solved.residuals[known] / free[known, None])
        errors[known] = sigma[:, :, None] * np.sqrt(solved.spreads[known])[:, None, :]
    return {
        "coefficients": bias_last(solved.coefficients, solver.bias),
        "standard_errors": bias_last(errors, solver.bias),
        "rows": rows,
        "ranks": solved.ranks,
        "conditions": solved.facts[:, columns.CONDITION],
        "residual_squares": solved.residuals,
        "total_squares": solved.totals,
        "log_weights": solved.facts[:, columns.LOG_WEIGHT],
    }
