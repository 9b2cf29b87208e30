"""Training a cohort in a worker: whatever goes wrong is told of the members it went wrong for, and of no other."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.errors import EpochdError
from epochd_server.domain.specs import Model, ModuleModel
from epochd_server.engine.allocation import is_out_of_memory
from epochd_server.engine.fitting import fit_members
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.executor.forwarding import END_SECONDS, LOG_SECONDS, Forwarder
from epochd_server.executor.log_records import RecordForwarder
from epochd_server.executor.outbox import Outbox
from epochd_server.executor.stops import StopRequests
from epochd_server.executor.tasks import apart, cohort_task, weighted
from epochd_server.executor.wire import CohortBegan, CohortDone, MembersFailed, Problem, TrainCohort

_LOG_HINT = "The server's log has the details under this run's id."


@dataclass(frozen=True, slots=True)
class CohortWorker:
    """Trains cohorts, one at a time.

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

    def train(self, work: TrainCohort) -> None:
        """Trains all members; returns when every one's end is reported."""
        self.outbox.put(CohortBegan("cpu"), LOG_SECONDS)
        self.records.run_ids = work.run_ids
        by_weights, alone = weighted(work), apart(work)
        left: list[int] = []
        for members in (np.flatnonzero(~by_weights & ~alone), np.flatnonzero(by_weights & ~alone)):
            if len(members):
                left += self._train_together(work, members)
        for member in [*left, *np.flatnonzero(alone).tolist()]:
            self._train_together(work, np.array([member]))
        self.stops.clear()
        self.records.run_ids = ()
        self.outbox.put(CohortDone())

    def _train_together(self, work: TrainCohort, members: NDArray[np.int64]) -> list[int]:
        """Trains members in one program; returns those that an error of another may have kept from their end."""
        forwarder = Forwarder(work.run_ids, members, self.outbox, self.stops)
        left: list[int] = []
        try:
            task = cohort_task(work, members)
            forwarder.begin(task, self.modules)
            fit_members(task, forwarder, modules=self.modules)
        except BaseException as error:  # a module may raise anything, SystemExit too; none may end the worker
            left = list(forwarder.unfinished)
            self._note(work, left, error)
            if len(members) == 1:
                self._fail(left, error_report(error, work.lead.model))
                left = []
        self._fail(forwarder.failed, module_failed(work.lead.model))
        return left

    def _fail(self, members: list[int], report: tuple[str, str, str]) -> None:
        if members:
            reason, message, hint = report
            failed = MembersFailed(members=tuple(members), reason=reason, message=message, hint=hint)
            self.outbox.put(failed, END_SECONDS)

    def _note(self, work: TrainCohort, members: list[int], error: BaseException) -> None:
        run_ids = tuple(work.run_ids[member] for member in members)
        detail = "".join(traceback.format_exception(error))
        self.outbox.put(Problem(event="training failed", run_ids=run_ids, detail=detail), END_SECONDS)


def error_report(error: BaseException, model: Model) -> tuple[str, str, str]:
    """Reason, message and hint that the owner of a run reads; nothing of the error's own text is in them."""
    if isinstance(error, EpochdError):
        return error.reason.value, error.message, ""
    if is_out_of_memory(error):
        return (
            "OUT_OF_MEMORY",
            "The worker had not enough memory for this training.",
            "Train on fewer rows, a smaller batch or a smaller model, or give the server more memory.",
        )
    if isinstance(model, ModuleModel):
        return module_failed(model, "tried to end the process" if isinstance(error, SystemExit) else "")
    return "INTERNAL", "The training failed for a reason that is not yours.", _LOG_HINT


def module_failed(model: Model, what: str = "") -> tuple[str, str, str]:
    """Reason, message and hint for a run whose registered module raised an error."""
    name = model.name if isinstance(model, ModuleModel) else "?"
    return "MODULE_FAILED", f"The registered module {name!r} {what or 'raised an error'}.", _LOG_HINT
