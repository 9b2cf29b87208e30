"""Training a part of a fleet in a worker. Members fail one by one; an error of the whole is told of the fleet."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.work import DatasetFile
from epochd_server.engine.cohort import EndBatch, LogBatch, MemberState, ProgressBatch
from epochd_server.engine.fitting import fit_members
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.executor.fleet_tasks import FleetTask, fleet_tasks, rows_of_members
from epochd_server.executor.fold_tasks import OfFold
from epochd_server.executor.forwarding import LOG_SECONDS, held_out_ends, log_columns, progress_columns
from epochd_server.executor.log_records import RecordForwarder
from epochd_server.executor.outbox import Outbox
from epochd_server.executor.stops import StopRequests
from epochd_server.executor.training import error_report
from epochd_server.executor.wire import (
    EXACT_FAILURES,
    CohortDone,
    EndColumns,
    FleetBegan,
    FleetFailed,
    Outcome,
    Problem,
    Stacked,
    TrainFleet,
)

_OUTCOME_OF = np.zeros(len(MemberState), np.int64)
_OUTCOME_OF[MemberState.FINISHED] = Outcome.FINISHED
_OUTCOME_OF[MemberState.DIVERGED] = Outcome.DIVERGED
_OUTCOME_OF[MemberState.STOPPED] = Outcome.STOPPED
_OUTCOME_OF[MemberState.FAILED] = Outcome.FAILED
for _name in EXACT_FAILURES.values():
    _OUTCOME_OF[MemberState[_name]] = Outcome[_name]


class FleetForwarder:
    """The engine's observer: passes on what it is told of a part of a fleet; nothing here is done member by member.

    Args:
        run_id: The fleet.
        part: Its part in training.
        outbox: Where reports go.
        stops: Who shall stop.
    """

    def __init__(self, run_id: str, part: FleetTask, outbox: Outbox, stops: StopRequests) -> None:
        self._run_id = run_id
        self._part = part
        self._outbox = outbox
        self._stops = stops
        self._everyone: frozenset[int] = frozenset()
        self._began = time.monotonic()

    def logs(self, batch: LogBatch) -> None:
        """Passes on the log points of the members that are to be logged."""
        chosen = np.flatnonzero(self._part.logged[batch.members])
        if len(chosen):
            columns = log_columns(batch, self._part.fit, self._part.task.metrics, chosen)
            if (narrowing := self._part.narrowing) is not None:
                columns = replace(columns, parameters=narrowing.parameters(columns.parameters))
            self._outbox.put(columns, LOG_SECONDS, columns.nbytes)

    def ended(self, batch: EndBatch) -> None:
        """Passes ends on."""
        outcomes = _OUTCOME_OF[batch.states]
        if (outcomes == Outcome.FAILED).any():
            self._note(batch)
        parameters: Stacked = batch.parameters
        statistics: Stacked = batch.statistics
        if (narrowing := self._part.narrowing) is not None:
            parameters, statistics = narrowing.parameters(parameters), narrowing.statistics(statistics)
        columns = EndColumns(
            members=self._part.fit[batch.members],
            outcomes=outcomes,
            epochs=batch.epochs_done,
            final_losses=batch.final_losses,
            parameters=parameters,
            statistics=statistics,
            seconds=time.monotonic() - self._began,
            held_out=held_out_ends(self._part.task, batch, np.arange(len(batch.members))),
        )
        self._outbox.put(columns, LOG_SECONDS, columns.nbytes)

    def progress(self, batch: ProgressBatch) -> None:
        """Passes on where members are."""
        columns = progress_columns(batch, self._part.fit, time.monotonic() - self._began)
        self._outbox.put(columns, LOG_SECONDS, columns.nbytes)

    def stopped_members(self) -> Collection[int]:
        """All members once the fleet shall stop."""
        if not self._everyone and self._run_id in self._stops.run_ids:
            self._everyone = frozenset(range(len(self._part.fit)))
        return self._everyone

    def _note(self, batch: EndBatch) -> None:
        failed = np.flatnonzero(batch.states == MemberState.FAILED)
        detail = f"{len(failed)} members, the first: {batch.messages[int(failed[0])] or ''}"
        self._outbox.put(Problem(event="members failed", run_ids=(self._run_id,), detail=detail), LOG_SECONDS)


@dataclass(slots=True)
class FleetWorker:
    """Trains parts of fleets, one at a time.

    Attributes:
        outbox: Where reports go.
        stops: Who shall stop.
        modules: The registered modules.
        records: Told which runs log records are about.
    """

    outbox: Outbox
    stops: StopRequests
    modules: ModuleRegistry
    records: RecordForwarder
    _loaded: tuple[str, TrainingArrays] | None = None

    def train(self, work: TrainFleet) -> None:
        """Trains a part; returns when the end of every member of it is reported."""
        self.records.run_ids = (work.run_id,)
        try:
            self._train(work)
        except BaseException as error:  # a module may raise anything, SystemExit too; none may end the worker
            detail = "".join(traceback.format_exception(error))
            self.outbox.put(Problem(event="training failed", run_ids=(work.run_id,), detail=detail))
            reason, message, hint = error_report(error, work.spec.model)
            self.outbox.put(FleetFailed(reason=reason, message=message, hint=hint))
        self.stops.clear()
        self.records.run_ids = ()
        self.outbox.put(CohortDone())

    def forget(self) -> None:
        """Lets go of the rows that were kept for further parts of a sweep."""
        self._loaded = None

    def _train(self, work: TrainFleet) -> None:
        rows = self._rows(work)
        parts = fleet_tasks(work, rows, self._of_fold(work))
        self.outbox.put(FleetBegan(device="cpu", rows=rows_of_members(work, rows)), LOG_SECONDS)
        del rows  # where members are unfit, the task has a copy of those of the others
        for part in parts:
            observer = FleetForwarder(work.run_id, part, self.outbox, self.stops)
            fit_members(part.task, observer, modules=self.modules)

    def _rows(self, work: TrainFleet) -> TrainingArrays:
        """The part's rows; those that all members of a sweep share are kept for its other parts."""
        if self._loaded is not None and self._loaded[0] == work.run_id:
            return self._loaded[1]
        self.forget()  # before others are read: both need not fit
        if not isinstance(work.data, DatasetFile):
            return work.data
        rows = _load(work.data.of_fold(0), work.spec)
        if work.spec.sweep is not None:
            self._loaded = (work.run_id, rows)
        return rows

    def _of_fold(self, work: TrainFleet) -> OfFold | None:
        """Reads a dataset's rows for one fold after the other, where each has features of its own."""
        file = work.data
        if not isinstance(file, DatasetFile) or file.preprocess is None or not file.preprocess.folds:
            return None
        return lambda fold: self._rows(work) if fold == 0 else _load(file.of_fold(fold), work.spec)


def _load(file: DatasetFile, spec: TrainingSpec) -> TrainingArrays:
    # imported here: it brings in pyarrow, which a run with inline rows does without
    from epochd_server.data.loading import load_training_arrays

    return load_training_arrays(file, spec)
