"""Newton's method over members: logistic and softmax, the kernels in slices.

Legend: M members of a slice, d features, C outputs (1 of a logistic model), p = d + bias coefficients of one output,
T iterations at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from epochd_server.domain.exact_fits import NewtonFit
from epochd_server.domain.specs import LossKind
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.exact import columns
from epochd_server.engine.exact import newton_kernel as kernel
from epochd_server.engine.exact.newton_problem import Work
from epochd_server.engine.exact.reporting import ExactReporter
from epochd_server.engine.exact.slicing import (
    SLICE_OPERATIONS,
    bias_last,
    flat_parameters,
    slices,
    without_stopped,
)
from epochd_server.engine.exact.task import Doubles, ExactRows, ExactTask, exact_rows
from epochd_server.engine.exact.triangles import BLOCK
from epochd_server.engine.task import Integers, MemberState

Save = Callable[[Integers, Columns, Integers, Integers], None]
"""As :meth:`ExactReporter.checkpoint`."""

_TRACED = 1_000_000
"""Iterations of all members of a slice that may be noted."""
_ENDS = np.zeros(kernel.EXHAUSTED + 1, np.int64)
_ENDS[kernel.CONVERGED] = MemberState.FINISHED
_ENDS[kernel.DEFICIENT] = MemberState.RANK_DEFICIENT
_ENDS[kernel.SEPARABLE] = MemberState.SEPARABLE_CLASSES
_ENDS[kernel.EXHAUSTED] = MemberState.NOT_CONVERGED


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes of a task's models: outputs C, coefficients p of each, whether there is a bias, softmax or logistic."""

    outputs: int
    width: int
    bias: bool
    softmax: bool

    @property
    def parameters(self) -> int:
        """P."""
        return self.outputs * self.width

    def operations(self) -> float:
        """Multiplications of an iteration for each row, about."""
        pairs = self.outputs * (self.outputs + 1) / 2 if self.softmax else 4
        return pairs * self.width**2

    def solving(self) -> float:
        """Multiplications of an iteration besides, about."""
        return float(self.parameters**3)


def _work(shape: _Shape) -> Work:
    size = shape.parameters
    return Work(
        factor=np.zeros((shape.width, shape.width)),
        inverse=np.zeros((shape.width, shape.width)),
        block=np.zeros((shape.width + 1, BLOCK)),
        scales=np.zeros(shape.width),
        solution=np.zeros(size),
        gradient=np.zeros(size),
        step=np.zeros(size),
        trial=np.zeros(size),
        parts=np.zeros((2 * shape.outputs + 1, BLOCK)),
        second=np.zeros((size, size) if shape.softmax else (0, 0)),
    )


class _Slice:
    """Members on their way to the optimum, M of them.

    Args:
        fit: How.
        shape: Of their models.
        members: Who they are.
        snapshots: Whether coefficients are noted at every iteration.
    """

    def __init__(self, fit: NewtonFit, shape: _Shape, members: Integers, *, snapshots: bool) -> None:
        count, most = len(members), fit.max_iterations
        self.fit, self.shape, self.members = fit, shape, members
        self.coefficients = np.zeros((count, shape.outputs, shape.width))
        self.iterations = np.zeros(count, np.int64)
        self.states = np.zeros(count, np.int64)
        self.losses = np.full(count, np.nan)
        self.nulls = np.full(count, np.nan)
        self.spreads = np.full((count, shape.outputs, shape.width), np.nan)
        self.facts = np.zeros((count, columns.FACTS))
        self.trace = np.zeros((count, most, kernel.TRACE))
        self.snapshots = np.zeros((count, most if snapshots else 0, shape.parameters))
        self._reported = np.zeros(count, np.int64)
        self._ended = np.zeros(count, np.bool_)
        self._columns: Columns = {"coefficients": self.coefficients, "facts": self.facts, "nulls": self.nulls}
        self._found = kernel.Found(
            self.coefficients, self.iterations, self.states, self.losses, self.nulls, self.spreads, self.facts,
            self.trace, self.snapshots,
        )  # fmt: skip
        self._work = _work(shape)

    def resume(self, reporter: ExactReporter) -> None:
        """Puts members where they were when they were saved."""
        self.iterations[:] = self._reported[:] = reporter.resume(self.members, self._columns)

    @property
    def running(self) -> bool:
        """Whether there is more to do."""
        return bool((self.states == kernel.RUNNING).any())

    def advance(self, rows: ExactRows, labels: Integers, budget: int) -> None:
        """Goes on with all members for at most ``budget`` iterations each."""
        fit, shape, members = self.fit, self.shape, self.members
        mine = kernel.Rows(rows.features, labels, rows.weights, rows.starts[members], rows.counts[members])
        spare = shape.bias and not fit.penalize_bias
        most = fit.max_iterations
        rules = kernel.Rules(shape.bias, float(fit.l2), spare, float(fit.tolerance), most, budget)
        kernel.fit_newton_members(mine, rules, self._found, self._work)

    def stop(self, reporter: ExactReporter) -> None:
        """Ends the members that shall stop."""
        stopped = np.isin(self.members, list(reporter.stopped())) & ~self._ended
        stopped &= self.states == kernel.RUNNING
        if stopped.any():
            self._save(np.flatnonzero(stopped), reporter.checkpoint)
            self._ended |= stopped
            self.states[stopped] = kernel.EXHAUSTED
            reporter.stop(self.members[stopped], self.iterations[stopped], self._flat(stopped))

    def save_if_due(self, reporter: ExactReporter) -> None:
        """Tells where the members are that go on."""
        self._save(np.flatnonzero(self.states == kernel.RUNNING), reporter.checkpoint_if_due)

    def _save(self, places: Integers, save: Save) -> None:
        save(self.members[places], self._columns, places, self.iterations[places])

    def report(self, reporter: ExactReporter) -> None:
        """Reports iterations that were made since the last time, and members that have ended."""
        iterations = np.arange(int(self.iterations.max(initial=0)))
        new = (iterations >= self._reported[:, None]) & (iterations < self.iterations[:, None])
        for iteration in np.flatnonzero(new.any(0)).tolist():
            self._log(np.flatnonzero(new[:, iteration]), iteration, reporter)
        self._reported[:] = self.iterations
        ended = np.flatnonzero((self.states != kernel.RUNNING) & ~self._ended)
        if not len(ended):
            return
        self._ended[ended] = True
        ends, losses = _ENDS[self.states[ended]], self._means(self.losses[ended], ended)
        ends[(ends == MemberState.FINISHED) & np.isnan(losses)] = MemberState.DIVERGED
        reporter.end(
            self.members[ended],
            ends,
            self.iterations[ended],
            losses,
            self._flat(ended),
            self._statistics(ended),
        )

    def _log(self, chosen: Integers, iteration: int, reporter: ExactReporter) -> None:
        flat = None
        if self.snapshots.shape[1]:
            shape = self.shape
            noted = self.snapshots[chosen, iteration].reshape(-1, shape.outputs, shape.width)
            flat = flat_parameters(noted, shape.bias)
        trace = self.trace[chosen, iteration]
        reporter.log(
            self.members[chosen],
            np.full(len(chosen), iteration),
            self._means(trace[:, kernel.LOSS], chosen),
            trace[:, kernel.STEP],
            flat,
        )

    def _means(self, losses: Doubles, chosen: Integers) -> Doubles:
        """Mean losses [M]; NaN of members all of whose classes weigh 0."""
        with np.errstate(invalid="ignore"):
            means: Doubles = losses / self.facts[chosen, columns.WEIGHT]
        return means

    def _flat(self, chosen: Integers | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Doubles:
        return flat_parameters(self.coefficients[chosen], self.shape.bias)

    def _statistics(self, chosen: Integers) -> dict[str, Doubles]:
        """What the statistics of the fits come from; see :mod:`epochd_server.domain.statistics`."""
        known = (self.states[chosen] == kernel.CONVERGED) & (self.fit.l2 == 0.0)
        errors = np.sqrt(np.where(known[:, None, None], self.spreads[chosen], np.nan))
        return {
            "coefficients": bias_last(self.coefficients[chosen], self.shape.bias),
            "standard_errors": bias_last(errors, self.shape.bias),
            "rows": self.facts[chosen, columns.ROWS],
            "ranks": np.full(len(chosen), float(self.shape.width)),
            "conditions": self.facts[chosen, columns.CONDITION],
            "log_likelihoods": -self.losses[chosen],
            "null_likelihoods": -self.nulls[chosen],
        }


def fit_newton(task: ExactTask, fit: NewtonFit, bias: bool, reporter: ExactReporter) -> None:
    """Fits every member of a task.

    Args:
        task: A linear model with bce_with_logits or cross_entropy.
        fit: How.
        bias: Whether the model has one.
        reporter: Is told of iterations and ends.
    """
    rows = exact_rows(task)
    labels = rows.labels
    softmax = task.loss.kind is LossKind.CROSS_ENTROPY
    shape = _Shape(task.model_outputs if softmax else 1, rows.features.shape[1] + bias, bias, softmax)
    costs = rows.counts * shape.operations() + shape.solving()
    usual = min(fit.max_iterations, 10)
    least = SLICE_OPERATIONS * fit.max_iterations / _TRACED
    for slice_members in slices(np.maximum(costs * usual, least)):
        members = without_stopped(slice_members, shape.parameters, reporter)
        if not len(members):
            continue
        part = _Slice(fit, shape, members, snapshots=reporter.logs_parameters)
        part.resume(reporter)
        budget = max(int(SLICE_OPERATIONS / costs[members].sum()), 1)
        while part.running:
            part.advance(rows, labels, budget)
            part.report(reporter)
            part.stop(reporter)
            part.save_if_due(reporter)
