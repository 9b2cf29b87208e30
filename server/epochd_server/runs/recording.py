"""From what a worker says of a run to the run's log, its model version and its end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from epochd_server.codec.pages import Body, EventPage
from epochd_server.domain.epoch_columns import EpochColumns
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.evaluations import fleet_evaluation
from epochd_server.domain.fleets import MemberState
from epochd_server.domain.models import TrainedModel, VersionCard
from epochd_server.domain.runs import (
    Cancelled,
    Event,
    Failure,
    FleetProgress,
    MemberLog,
    Paused,
    Resumed,
    RunState,
    Started,
    Warned,
)
from epochd_server.domain.stopping import Wish
from epochd_server.domain.validation import Evaluation
from epochd_server.domain.work import (
    FleetAdvanced,
    RunBegan,
    RunCheckpointed,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    WorkMessage,
)
from epochd_server.runs.durable import durably
from epochd_server.runs.live import LiveRun
from epochd_server.runs.ports import Append, ClaimLostError, RunStore, RunWrite, Success

_logger = structlog.get_logger(__name__)


_RESUMED = "RUN_RESUMED"


@dataclass(frozen=True, slots=True)
class _Pending:
    """What is to be written of a run.

    Attributes:
        page: The events; of a success those before the last. None where there are none.
    """

    run: LiveRun
    page: EventPage | None
    write: RunWrite


class Recorder:
    """Writes runs' logs. What comes together is written together, whichever runs it is of.

    Args:
        store: Where logs are kept.
        ended: Is told of every run after its last event was written, or could not be.
        lost: Is told of runs that another server has claimed.
        now: The time.
    """

    def __init__(
        self,
        store: RunStore,
        ended: Callable[[LiveRun], None],
        lost: Callable[[LiveRun], None],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._now = now
        self._ended = ended
        self._lost = lost

    async def record(self, said: Iterable[tuple[LiveRun, Sequence[WorkMessage]]]) -> None:
        """Writes what a worker said of runs, in order; of each run once."""
        pending: list[_Pending] = []
        for run, messages in said:
            if run.ended:
                continue
            try:
                pending += self._draft(run, messages)
            except Exception as error:
                self._lose(run, error)
        await self._write(pending)

    async def fail(self, run: LiveRun, failure: Failure) -> None:
        """Ends a run as FAILED."""
        await self.record([(run, [RunFailed(run_id=run.run_id, failure=failure)])])

    async def stop(self, run: LiveRun) -> None:
        """Ends or pauses a run, as is wished, after the epochs that its log tells of."""
        await self.record([(run, [RunStopped(run_id=run.run_id, epochs=run.last_epoch + 1)])])

    async def resume(self, run: LiveRun) -> None:
        """Lets a paused run wait again."""
        run.newest_time = max(self._now(), run.newest_time)
        page = run.log.next_page([(run.newest_time, Resumed())])
        write = Append(run_id=run.run_id, claim=run.claim, events=page, state=RunState.QUEUED)
        await self._write([_Pending(run, page, write)])

    def _draft(self, run: LiveRun, messages: Sequence[WorkMessage]) -> Iterator[_Pending]:
        """What is to be written of a run: one thing, or nothing where the log tells it all."""
        bodies: list[Body] = []
        for message in messages[:-1]:
            bodies += self._bodies(run, message)
        last = messages[-1]
        stopped = isinstance(last, RunStopped)
        run.ended = isinstance(last, RunTrained | RunFailed) or (stopped and run.cancelled)
        run.halted = stopped and not run.ended
        bodies += self._bodies(run, last)
        before = run.newest_time
        now = run.newest_time = max(self._now(), before)
        if isinstance(last, RunTrained):
            yield _success(run, bodies, last, (before, now))
        elif isinstance(last, RunStopped) and run.wish is Wish.KEEP and last.reached is not None:
            yield _success(run, bodies, last.reached, (before, now), _cancelled(run, last))
        elif bodies:
            page = run.log.next_page((now, body) for body in bodies)
            write = Append(run_id=run.run_id, claim=run.claim, events=page, state=_state(bodies))
            yield _Pending(run, page, write)

    def _bodies(self, run: LiveRun, message: WorkMessage) -> Sequence[Body]:
        """What a message adds to the run's log."""
        match message:
            case RunBegan():
                return self._begin(run, message)
            case RunLogged():
                return self._new_logs(run, message)
            case FleetAdvanced():
                return [news for news in message.news if _is_new(run, news)]
            case RunFailed():
                return [message.failure]
            case RunStopped():
                return self._stop(run, message)
            case RunTrained() | RunCheckpointed():
                return []

    def _stop(self, run: LiveRun, stopped: RunStopped) -> Sequence[Body]:
        """What is told of a run that was stopped; nothing where nobody wants that any more."""
        if run.cancelled:
            is_kept = run.wish is Wish.KEEP and stopped.reached is not None
            return [] if is_kept else [_cancelled(run, stopped)]
        run.paused = run.wish is Wish.PAUSE
        run.wish = None
        return [Paused(epochs=stopped.epochs)] if run.paused else []

    async def _write(self, pending: Sequence[_Pending]) -> None:
        if not pending:
            return
        writes = [one.write for one in pending]
        results: Sequence[Event | Exception | None]
        try:
            results = await durably(lambda: self._store.record(writes))
        except Exception as error:
            results = [error] * len(writes)
        for one, result in zip(pending, results, strict=True):
            if isinstance(result, ClaimLostError):
                self._lost(one.run)
                continue
            if isinstance(result, Exception):
                self._lose(one.run, result)
                continue
            _publish(one, result)
            if one.run.ended:
                self._ended(one.run)

    def _lose(self, run: LiveRun, error: Exception) -> None:
        """Gives a run up whose log could not be written."""
        _logger.error(
            "a run's log could not be written; it is left for the next start", run=run.run_id, exc_info=error
        )
        run.ended = True
        run.log.close(EpochdError(Reason.INTERNAL))
        self._ended(run)

    def _begin(self, run: LiveRun, began: RunBegan) -> list[Body]:
        interrupted, run.interrupted = run.interrupted, ""
        if run.begun:
            return _warnings(run, interrupted) if interrupted else []
        run.begun = True
        return [replace(_started(run), device=began.device)]

    def _new_logs(self, run: LiveRun, message: RunLogged) -> Sequence[Body]:
        logs = message.logs
        epochs = logs.epochs if isinstance(logs, EpochColumns) else [log.epoch for log in logs]
        known = bisect_right(epochs, run.last_epoch)
        if known == len(epochs):
            return []
        run.last_epoch = epochs[-1]
        new = logs[known:] if known else logs
        return [new] if isinstance(new, EpochColumns) else new


def _warnings(run: LiveRun, interrupted: str) -> list[Body]:
    """What the log tells of a run that goes on after an interruption."""
    damaged: list[Body] = []
    if run.damaged_checkpoints:
        message = f"The newest {run.damaged_checkpoints} of its checkpoints cannot be read."
        damaged = [Warned(reason="CHECKPOINT_DAMAGED", message=message)]
    return [*damaged, Warned(reason=_RESUMED, message=f"{interrupted} {run.resumption}")]


def _state(bodies: Sequence[Body]) -> RunState | None:
    """The state that events bring."""
    if isinstance(bodies[-1], Failure):
        return RunState.FAILED
    if isinstance(bodies[-1], Cancelled):
        return RunState.CANCELLED
    if isinstance(bodies[-1], Paused):
        return RunState.PAUSED
    return RunState.RUNNING if any(map(_begins, bodies)) else None


def _begins(body: Body) -> bool:
    """Whether this is told of a run when its training begins, or goes on."""
    return isinstance(body, Started) or (isinstance(body, Warned) and body.reason == _RESUMED)


def _cancelled(run: LiveRun, stopped: RunStopped) -> Cancelled:
    return Cancelled(epochs=stopped.epochs, reason=run.reason)


def _success(
    run: LiveRun,
    bodies: Sequence[Body],
    trained: RunTrained,
    times: tuple[datetime, datetime],
    cancelled: Cancelled | None = None,
) -> _Pending:
    """The end of a run with a version, and what its log does not tell yet.

    Args:
        run: The run.
        bodies: What is to be told before its end.
        trained: What became of it.
        times: Of the newest event in its log, and now.
        cancelled: How it ends if it was cancelled.
    """
    before, now = times
    entries = [(now, body) for body in bodies]
    if bodies and isinstance(bodies[0], Started):  # it is news only now, but happened when training began
        began = now - timedelta(seconds=trained.training_seconds)
        entries[0] = (max(began, before), bodies[0])
    page = run.log.next_page(entries) if entries else None
    write = Success(
        run_id=run.run_id,
        claim=run.claim,
        sequence=(run.log.newest if page is None else page.last) + 1,
        time=now,
        trained=trained_model(run, trained),
        training_seconds=trained.training_seconds,
        before=page or (),
        cancelled=cancelled,
    )
    return _Pending(run, page, write)


def _publish(written: _Pending, end: Event | None) -> None:
    """Shows the run's watchers what was written."""
    page = EventPage.ending(written.page, end)
    if page is not None:
        written.run.log.publish(page)


def _is_new(run: LiveRun, news: FleetProgress | MemberLog) -> bool:
    """Whether the log does not tell it yet; where a fleet is, is always news."""
    if isinstance(news, FleetProgress):
        return True
    if news.log.epoch <= run.last_epochs.get(news.key, -1):
        return False
    run.last_epochs[news.key] = news.log.epoch
    return True


def trained_model(run: LiveRun, trained: RunTrained) -> TrainedModel:
    """What the registry is given of a run that reached its last epoch."""
    started, members = _started(run), trained.members
    card = VersionCard(
        run_id=run.run_id,
        spec=run.spec,
        feature_columns=started.feature_columns,
        target_columns=started.target_columns,
        classes=started.classes,
        parameters=started.parameters,
        rows=started.rows,
        epochs=trained.epochs,
        final_loss=trained.final_loss,
        members=0 if members is None else len(members.keys),
        failed_members=0 if members is None else int((members.states == MemberState.FAILED).sum()),
        key_columns=started.key_columns,
        evaluation=_evaluation(run, trained),
        weight_column=started.weight_column,
        lineage=started.lineage,
        preprocess=started.preprocess,
        statistics=trained.statistics,
    )
    if members is not None and started.preprocess is not None:
        members = replace(members, learned=started.preprocess.statistics)
    return TrainedModel(card=card, parameters=trained.parameters, members=members)


def _evaluation(run: LiveRun, trained: RunTrained) -> Evaluation | None:
    """How a model or a fleet does on its held-out rows; None where there are none."""
    if trained.members is None:
        return trained.evaluation
    return fleet_evaluation(trained.members, is_sweep=run.spec.sweep is not None)


def _started(run: LiveRun) -> Started:
    if run.started is None:
        raise RuntimeError(f"run {run.run_id} is trained without a plan")
    return run.started
