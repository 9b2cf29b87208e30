"""Least squares over members: the kernel in slices, and what is done where the rank is deficient.

Legend: M members of a slice, d features, t targets, p = d + bias coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from epochd_server.domain.exact_fits import LeastSquaresFit, RankRule
from epochd_server.engine.exact import columns
from epochd_server.engine.exact import least_squares_kernel as kernel
from epochd_server.engine.exact.minimum_norm import matrix_rank, minimum_norm
from epochd_server.engine.exact.panels import MANY
from epochd_server.engine.exact.reporting import ExactReporter
from epochd_server.engine.exact.slicing import bias_last, flat_parameters, slices, without_stopped
from epochd_server.engine.exact.task import Doubles, ExactRows, ExactTask, exact_rows
from epochd_server.engine.exact.triangles import BLOCK
from epochd_server.engine.exact.wide import WideMember
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


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes of a task's models: coefficients p of each of the targets t, and whether there is a bias."""

    columns: int
    targets: int
    bias: bool

    @property
    def parameters(self) -> int:
        """P."""
        return self.columns * self.targets


def _nothing_solved(count: int, shape: _Shape) -> _Solved:
    return _Solved(
        coefficients=np.full((count, shape.targets, shape.columns), np.nan),
        spreads=np.full((count, shape.columns), np.nan),
        residuals=np.full((count, shape.targets), np.nan),
        totals=np.full((count, shape.targets), np.nan),
        facts=np.zeros((count, columns.FACTS)),
        states=np.zeros(count, np.int64),
        ranks=np.full(count, float(shape.columns)),
    )


class _Solver:
    """Runs the kernel.

    Args:
        fit: The penalty.
        shape: Of the models.
        rows: The members' rows.
    """

    def __init__(self, fit: LeastSquaresFit, shape: _Shape, rows: ExactRows) -> None:
        self.fit, self.shape, self.rows = fit, shape, rows
        width, targets = shape.columns, shape.targets
        self.factor = np.zeros((width, width + targets))
        self.scales = np.zeros(width)
        self._work = (
            np.zeros((width, width)),
            np.zeros((width + targets, BLOCK)),
            self.scales,
            np.zeros((targets, width)),
            np.zeros((targets, 2, width)),
            np.zeros((2, BLOCK)),
        )

    def solve(self, members: Integers) -> _Solved:
        """Fits members; of the last one ``factor`` and ``scales`` are left behind."""
        solved = _nothing_solved(len(members), self.shape)
        rows, fit = self.rows, self.fit
        kernel.fit_members(
            rows.features, rows.numbers, rows.weights, rows.starts[members], rows.counts[members],
            self.shape.bias, float(fit.l2), fit.penalize_bias,
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
    shape = _Shape(rows.features.shape[1] + bias, rows.targets.shape[1], bias)
    if shape.columns >= MANY:
        _fit_wide(fit, shape, rows, reporter)
        return
    solver = _Solver(fit, shape, rows)
    operations = float(4 * shape.columns * (shape.columns + shape.targets))
    costs = np.asarray(rows.counts * operations + shape.columns**3, np.float64)
    for slice_members in slices(costs):
        members = without_stopped(slice_members, shape.parameters, reporter)
        if len(members):
            _report(members, _solve(solver, members), fit, shape, reporter)


def _fit_wide(fit: LeastSquaresFit, shape: _Shape, rows: ExactRows, reporter: ExactReporter) -> None:
    """Fits members of many coefficients, who are looked after one by one."""
    for position in range(len(rows.starts)):
        members = np.array([position])
        if not len(without_stopped(members, shape.parameters, reporter)):
            continue
        member = WideMember(fit, shape.bias, rows, position)
        if not member.factorise(partial(_is_wanted, position, reporter)):
            reporter.stop(members, np.zeros(1, np.int64), np.zeros((1, shape.parameters)))
            continue
        solved = _nothing_solved(1, shape)
        if member.measure():
            member.solve(solved.coefficients[0], solved.residuals[0], solved.totals[0])
        else:
            solved.states[0] = kernel.DEFICIENT
            _resolve_deficient(
                _Deficient(fit, shape, rows, member.factor, member.scales), solved, 0, position
            )
        solved.facts[0], solved.spreads[0] = member.facts, member.spreads
        _report(members, solved, fit, shape, reporter)


def _is_wanted(member: int, reporter: ExactReporter) -> bool:
    return member not in reporter.stopped()


def _solve(solver: _Solver, members: Integers) -> _Solved:
    solved = solver.solve(members)
    for position in np.flatnonzero(solved.states == kernel.DEFICIENT).tolist():
        member = members[position : position + 1]
        solver.solve(member)
        deficient = _Deficient(solver.fit, solver.shape, solver.rows, solver.factor, solver.scales)
        _resolve_deficient(deficient, solved, position, int(member[0]))
    return solved


@dataclass(frozen=True, slots=True, eq=False)
class _Deficient:
    """A fit, and the factor [r, p + t] and scales [p] of a member whose rank is deficient."""

    fit: LeastSquaresFit
    shape: _Shape
    rows: ExactRows
    factor: Doubles
    scales: Doubles


def _resolve_deficient(deficient: _Deficient, solved: _Solved, position: int, member: int) -> None:
    """Finds the rank of a member and, where that is asked for, its solution of smallest norm."""
    rows, shape = deficient.rows, deficient.shape
    start, count = int(rows.starts[member]), int(rows.counts[member])
    limit = columns.rank_limit(count, shape.columns)
    triangle = deficient.factor[:, : shape.columns]
    solved.ranks[position] = matrix_rank(triangle, limit)
    if deficient.fit.rank is RankRule.REFUSE:
        return
    right = deficient.factor[:, shape.columns :]
    coefficients = minimum_norm(triangle, right, deficient.scales, shape.bias, limit)
    own = slice(start, start + count)
    weights = rows.weights[own] if len(rows.weights) else np.ones(count)
    targets = rows.targets[own].astype(np.float64)
    outputs = rows.features[own] @ coefficients[:, shape.bias :].T
    mean = (weights @ targets) / weights.sum() if shape.bias else 0.0
    if shape.bias:
        outputs = outputs + coefficients[:, 0]
    solved.coefficients[position] = coefficients
    solved.residuals[position] = weights @ (targets - outputs) ** 2
    solved.totals[position] = weights @ (targets - mean) ** 2
    solved.states[position] = kernel.SOLVED


def _report(
    members: Integers, solved: _Solved, fit: LeastSquaresFit, shape: _Shape, reporter: ExactReporter
) -> None:
    count = len(members)
    losses = (solved.residuals / solved.facts[:, columns.WEIGHT, None]).mean(1)
    flat = flat_parameters(solved.coefficients, shape.bias)
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
    reporter.end(members, states, first + ~failed, losses, flat, _statistics(solved, fit, shape))


def _statistics(solved: _Solved, fit: LeastSquaresFit, shape: _Shape) -> dict[str, Doubles]:
    """What the statistics of the fits come from; see :mod:`epochd_server.domain.statistics`."""
    rows = solved.facts[:, columns.ROWS]
    free = rows - solved.ranks
    errors = np.full_like(solved.coefficients, np.nan)
    known = (solved.ranks == shape.columns) & (free > 0)
    if fit.l2 == 0.0:
        sigma = np.sqrt(solved.residuals[known] / free[known, None])
        errors[known] = sigma[:, :, None] * np.sqrt(solved.spreads[known])[:, None, :]
    return {
        "coefficients": bias_last(solved.coefficients, shape.bias),
        "standard_errors": bias_last(errors, shape.bias),
        "rows": rows,
        "ranks": solved.ranks,
        "conditions": solved.facts[:, columns.CONDITION],
        "residual_squares": solved.residuals,
        "total_squares": solved.totals,
        "log_weights": solved.facts[:, columns.LOG_WEIGHT],
    }
