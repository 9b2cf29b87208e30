"""L-BFGS over members: the kernel in slices.

Legend: M members of a slice, P parameters, T iterations of a call.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from epochd_server.domain.exact_fits import LbfgsFit
from epochd_server.domain.specs import CLASSIFICATION_LOSSES, Init, LinearModel, LossKind
from epochd_server.engine.chain import Chain
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.exact import lbfgs_kernel as kernel
from epochd_server.engine.exact.network import Data, Network, blocks_of, network_of
from epochd_server.engine.exact.reporting import ExactReporter
from epochd_server.engine.exact.slicing import SLICE_OPERATIONS, slices, without_stopped
from epochd_server.engine.exact.task import Doubles, ExactRows, ExactTask, exact_rows
from epochd_server.engine.initialisation import seeded_parameters
from epochd_server.engine.task import Integers, MemberState

_REMEMBERED = 1e7
"""Numbers that the members of a slice may remember of their updates."""
_USUAL_ITERATIONS = 50
_CALL_ITERATIONS = 100
_STEEP = 1e-6
"""A gradient of the mean objective that rounding does not explain."""
_ENDS = np.zeros(6, np.int64)
_ENDS[[kernel.CONVERGED, kernel.STALLED]] = MemberState.FINISHED
_ENDS[kernel.EXHAUSTED] = MemberState.NOT_CONVERGED
_ENDS[kernel.DIVERGED] = MemberState.DIVERGED
_ENDS[kernel.SEPARABLE] = MemberState.SEPARABLE_CLASSES


def fit_lbfgs(task: ExactTask, fit: LbfgsFit, chain: Chain, reporter: ExactReporter) -> None:
    """Fits every member of a task.

    Args:
        task: A linear or sequential model with smooth layers and a smooth loss.
        fit: How.
        chain: The model.
        reporter: Is told of iterations and ends.
    """
    rows = exact_rows(task)
    network = network_of(chain, task.loss.kind, task.loss.delta, penalize_bias=fit.penalize_bias)
    costs = rows.counts * float(6 * chain.size) + 4 * fit.history * chain.size
    least = SLICE_OPERATIONS * 2 * fit.history * chain.size / _REMEMBERED
    for slice_members in slices(np.maximum(costs * min(fit.max_iterations, _USUAL_ITERATIONS), least)):
        members = without_stopped(slice_members, chain.size, reporter)
        if len(members):
            part = _Slice(task, fit, chain, network, rows, members, snapshots=reporter.logs_parameters)
            part.resume(reporter)
            part.run(max(int(SLICE_OPERATIONS / costs[members].sum()), 1), reporter)


class _Slice:
    """Members on their way to the optimum, M of them."""

    def __init__(
        self,
        task: ExactTask,
        fit: LbfgsFit,
        chain: Chain,
        network: Network,
        rows: ExactRows,
        members: Integers,
        *,
        snapshots: bool,
    ) -> None:
        self._task, self._fit, self._network, self._rows = task, fit, network, rows
        self._members, self._size, self._snapshots = members, chain.size, snapshots
        count, history = len(members), fit.history
        self._parameters = _start(task, chain, members)
        self._memory = (
            np.zeros((count, chain.size)),
            np.zeros((count, history, chain.size)),
            np.zeros((count, history, chain.size)),
            np.zeros(count, np.int64),
        )
        self._iterations = np.zeros(count, np.int64)
        self._states = np.zeros(count, np.int64)
        self._losses = np.full(count, np.nan)
        self._work = kernel.Work(
            direction=np.zeros(chain.size),
            trial=np.zeros(chain.size),
            slope=np.zeros(chain.size),
            shares=np.zeros(history),
        )
        self._blocks = blocks_of(network)

    @property
    def _columns(self) -> Columns:
        """What changes from iteration to iteration, [M, …] each; gradients are found again."""
        _, steps, changes, kept = self._memory
        return {"parameters": self._parameters, "steps": steps, "changes": changes, "kept": kept}

    def resume(self, reporter: ExactReporter) -> None:
        """Puts members where they were when they were saved."""
        self._iterations[:] = reporter.resume(self._members, self._columns)

    def run(self, budget: int, reporter: ExactReporter) -> None:
        """Goes on until every member has ended; every ``budget`` iterations they are saved, or stopped, as is due."""
        while (running := np.flatnonzero(self._states == kernel.RUNNING)).size:
            stopped = np.isin(self._members[running], list(reporter.stopped()))
            gone = running[stopped]
            self._states[gone] = kernel.EXHAUSTED
            reporter.checkpoint(self._members[gone], self._columns, gone, self._iterations[gone])
            reporter.stop(self._members[gone], self._iterations[gone], self._parameters[gone])
            if (running := running[~stopped]).size:
                self._advance(running, min(budget, _CALL_ITERATIONS), reporter)
                running = np.flatnonzero(self._states == kernel.RUNNING)
                members, iterations = self._members[running], self._iterations[running]
                reporter.checkpoint_if_due(members, self._columns, running, iterations)

    def _advance(self, chosen: Integers, budget: int, reporter: ExactReporter) -> None:
        count, before = len(self._members), self._iterations.copy()
        trace = np.zeros((count, budget, kernel.TRACE))
        snapshots = np.zeros((count, budget if self._snapshots else 0, self._size))
        gradients, steps, changes, kept = self._memory
        found = kernel.Found(
            self._parameters, gradients, steps, changes, kept, self._iterations, self._states, self._losses,
            trace, snapshots,
        )  # fmt: skip
        rules = self._rules(budget)
        for member in chosen.tolist():
            data = self._data(member)
            kernel.advance_member(self._network, data, self._blocks, rules, member, found, self._work)
        self._log(before, trace, snapshots, reporter)
        ended = chosen[self._states[chosen] != kernel.RUNNING]
        if not len(ended):
            return
        reporter.end(
            self._members[ended],
            self._ends(ended),
            self._iterations[ended],
            self._losses[ended],
            self._centred(self._parameters[ended]),
            {},
        )

    def _rules(self, budget: int) -> kernel.Rules:
        fit, task = self._fit, self._task
        convex = isinstance(task.model, LinearModel)
        endless = convex and fit.l2 == 0.0 and task.loss.kind in CLASSIFICATION_LOSSES
        return kernel.Rules(float(fit.l2), float(fit.tolerance), fit.max_iterations, budget, endless)

    def _data(self, place: int) -> Data:
        rows, member = self._rows, int(self._members[place])
        has_labels = self._task.loss.kind is LossKind.CROSS_ENTROPY
        return Data(
            rows.features,
            np.empty((0, 1)) if has_labels else rows.numbers,
            cast("Integers", rows.targets) if has_labels else np.empty(0, np.int64),
            rows.weights,
            int(rows.starts[member]),
            int(rows.counts[member]),
        )

    def _log(self, before: Integers, trace: Doubles, snapshots: Doubles, reporter: ExactReporter) -> None:
        made = self._iterations - before
        for position in range(int(made.max())):
            chosen = np.flatnonzero(made > position)
            reporter.log(
                self._members[chosen],
                before[chosen] + position,
                trace[chosen, position, kernel.LOSS],
                trace[chosen, position, kernel.STEP],
                snapshots[chosen, position] if self._snapshots else None,
            )

    def _ends(self, chosen: Integers) -> Integers:
        ends = _ENDS[self._states[chosen]]
        if isinstance(self._task.model, LinearModel):
            steepest = np.abs(self._memory[0][chosen]).max(1, initial=0.0)
            stuck = (self._states[chosen] == kernel.STALLED) & (steepest > _STEEP)
            ends[stuck] = MemberState.NOT_CONVERGED
        else:
            # A network has no one optimum: all its iterations are what was asked for.
            ends[ends == MemberState.NOT_CONVERGED] = MemberState.FINISHED
        return ends

    def _centred(self, parameters: Doubles) -> Doubles:
        """[M, P]; of a linear softmax model the coefficients that add up to 0 over the classes, as Newton's do."""
        task = self._task
        if task.loss.kind is not LossKind.CROSS_ENTROPY or not isinstance(task.model, LinearModel):
            return parameters
        classes = task.model_outputs
        biases = classes if task.model.bias else 0
        weights = parameters[:, : self._size - biases].reshape(len(parameters), classes, -1)
        bias = parameters[:, self._size - biases :]
        weights = weights - weights.mean(1, keepdims=True)
        bias = bias - bias.mean(1, keepdims=True) if biases else bias
        return np.concatenate([weights.reshape(len(parameters), -1), bias], 1)


def _start(task: ExactTask, chain: Chain, members: Integers) -> Doubles:
    """Where members begin, [M, P]."""
    if task.init is Init.ZEROS:
        return np.zeros((len(members), chain.size))
    drawn = seeded_parameters(chain, task.seeds[members], np.dtype(np.float64))
    return np.array(drawn, np.float64)
