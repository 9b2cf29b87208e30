"""The engine's observer in a worker: passes on what it is told, and tells whom to stop."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.validation import Evaluation, Metric
from epochd_server.engine.cohort import CohortTask, EndBatch, LogBatch, MemberState, ProgressBatch
from epochd_server.engine.evaluating import reports
from epochd_server.engine.fitting import Task
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.executor.outbox import Outbox
from epochd_server.executor.stops import StopRequests
from epochd_server.executor.wire import (
    EXACT_FAILURES,
    EndColumns,
    HeldOutColumns,
    LogColumns,
    Outcome,
    Problem,
    ProgressColumns,
    Stacked,
)

LOG_SECONDS = 0.02
END_SECONDS = 0.005
_OUTCOMES = {
    MemberState.FINISHED: Outcome.FINISHED,
    MemberState.DIVERGED: Outcome.DIVERGED,
    MemberState.STOPPED: Outcome.STOPPED,
    **{MemberState[name]: Outcome[name] for name in EXACT_FAILURES.values()},
}


class Forwarder:
    """Observes the training of a cohort, or of some of its members.

    Args:
        run_ids: The cohort's runs.
        members: Positions in ``run_ids`` of the members that the engine was given, in its order.
        outbox: Where reports go.
        stops: Who shall stop.
    """

    def __init__(
        self, run_ids: Sequence[str], members: NDArray[np.int64], outbox: Outbox, stops: StopRequests
    ) -> None:
        self._run_ids = run_ids
        self._members = members
        self._outbox = outbox
        self._stops = stops
        self._seen_stops: frozenset[str] = frozenset()
        self._stopped: frozenset[int] = frozenset()
        self._began = time.monotonic()
        self._place = {run_ids[member]: place for place, member in enumerate(members.tolist())}
        self.unfinished: dict[int, None] = dict.fromkeys(members.tolist())
        self.failed: list[int] = []
        self._task: Task | None = None
        self._modules: ModuleRegistry | None = None

    def begin(self, task: Task, modules: ModuleRegistry) -> None:
        """Is told what is trained, before it is.

        Args:
            task: Over the members that the engine is given.
            modules: Where a registered module is found.
        """
        self._task, self._modules = task, modules

    def logs(self, batch: LogBatch) -> None:
        """Passes new log points on."""
        metrics = () if self._task is None else self._task.metrics
        columns = log_columns(batch, self._members, metrics)
        self._outbox.put(columns, LOG_SECONDS, columns.nbytes)

    def ended(self, batch: EndBatch) -> None:
        """Passes ends on; those whose module failed are kept in ``failed``."""
        members = self._members[batch.members]
        for position, member in enumerate(members.tolist()):
            del self.unfinished[member]
            if batch.states[position] == MemberState.FAILED:
                self.failed.append(member)
                self._note(member, batch.messages[position] or "")
        good = np.flatnonzero(batch.states != MemberState.FAILED)
        if not len(good):
            return
        columns = EndColumns(
            members=members[good],
            outcomes=np.array([_OUTCOMES[MemberState(state)] for state in batch.states[good].tolist()]),
            epochs=batch.epochs_done[good],
            final_losses=batch.final_losses[good],
            parameters={name: array[good] for name, array in batch.parameters.items()},
            seconds=time.monotonic() - self._began,
            statistics={name: array[good] for name, array in batch.statistics.items()},
            held_out=self._held_out(batch, good),
            stable_lrs=None if batch.stable_lrs is None else batch.stable_lrs[good],
        )
        self._outbox.put(columns, END_SECONDS, columns.nbytes)

    def _held_out(self, batch: EndBatch, good: NDArray[np.int64]) -> HeldOutColumns | None:
        if self._task is None or self._task.validation is None:
            return None
        everyone = reports(self._task, batch, self._modules)
        return held_out_ends(self._task, batch, good, tuple(everyone[position] for position in good.tolist()))

    def progress(self, batch: ProgressBatch) -> None:
        """Passes on where members are."""
        columns = progress_columns(batch, self._members, time.monotonic() - self._began)
        self._outbox.put(columns, LOG_SECONDS, columns.nbytes)

    def stopped_members(self) -> Collection[int]:
        """Members that shall stop, as the engine numbers them."""
        run_ids = self._stops.run_ids
        if run_ids is not self._seen_stops:
            self._seen_stops = run_ids
            self._stopped = frozenset(self._place[run] for run in run_ids if run in self._place)
        return self._stopped

    def _note(self, member: int, detail: str) -> None:
        run_ids = (self._run_ids[member],)
        self._outbox.put(Problem(event="training failed", run_ids=run_ids, detail=detail), END_SECONDS)


def held_out_ends(
    task: Task, batch: EndBatch, chosen: NDArray[np.int64], reports: tuple[Evaluation, ...] = ()
) -> HeldOutColumns | None:
    """What members that ended reach on held-out rows; None where there are none.

    Args:
        task: What was trained.
        batch: The ends.
        chosen: Positions of the members that are reported.
        reports: One for each of these, or none.
    """
    if task.validation is None:
        return None
    sizes = np.diff(task.validation.offsets)
    shared = isinstance(task, CohortTask) and task.shared_data
    return HeldOutColumns(
        metrics=task.metrics,
        losses=batch.validation_losses[chosen],
        values=batch.metrics[chosen],
        rows=np.full(len(chosen), sizes[0]) if shared else sizes[batch.members[chosen]],
        best_epochs=batch.best_epochs[chosen],
        reports=reports,
    )


def progress_columns(batch: ProgressBatch, members: NDArray[np.int64], seconds: float) -> ProgressColumns:
    """The report on where members are.

    Args:
        batch: Where they are.
        members: By what number the server knows each of the engine's members.
        seconds: Since training began.
    """
    return ProgressColumns(
        members=members[batch.members], epochs=batch.epochs, state=batch.state, seconds=seconds
    )


def log_columns(
    batch: LogBatch,
    members: NDArray[np.int64],
    metrics: tuple[Metric, ...],
    chosen: NDArray[np.int64] | None = None,
) -> LogColumns:
    """The report on log points.

    Args:
        batch: The points.
        members: By what number the server knows each of the engine's members.
        metrics: What is measured on held-out rows.
        chosen: Positions of the points that are reported; None is all.
    """
    chosen = np.arange(len(batch.members)) if chosen is None else chosen
    parameters = batch.parameters
    with_parameters, stacked = _stack(
        None if parameters is None else [parameters[position] for position in chosen.tolist()]
    )
    return LogColumns(
        members=members[batch.members[chosen]],
        epochs=batch.epochs[chosen],
        losses=batch.losses[chosen],
        lrs=batch.lrs[chosen],
        rows_per_second=batch.rows_per_second[chosen],
        with_parameters=with_parameters,
        parameters=stacked,
        held_out=_held_out_points(batch, metrics, chosen),
    )


def _held_out_points(
    batch: LogBatch, metrics: tuple[Metric, ...], chosen: NDArray[np.int64]
) -> HeldOutColumns | None:
    if batch.validation_losses is None or batch.metrics is None:
        return None
    nobody = np.empty(0, np.int64)
    return HeldOutColumns(
        metrics=metrics,
        losses=batch.validation_losses[chosen],
        values=batch.metrics[chosen],
        rows=nobody,
        best_epochs=nobody,
    )


def _stack(
    logged: Sequence[dict[str, NDArray[np.floating]] | None] | None,
) -> tuple[NDArray[np.int64] | None, Stacked]:
    """Positions of the points that carry parameters, and these by name [M', …]."""
    if logged is None:
        return None, {}
    positions = [position for position, parameters in enumerate(logged) if parameters is not None]
    present = [parameters for parameters in logged if parameters is not None]
    names = present[0] if present else {}
    stacked = {name: np.stack([parameters[name] for parameters in present]) for name in names}
    return np.array(positions, np.int64), stacked
