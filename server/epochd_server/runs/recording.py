"""From what a worker says of a run to the run's log, its model version and its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.evaluations import fleet_evaluation
from epochd_server.domain.fleets import MemberState
from epochd_server.domain.models import TrainedModel, VersionCard
from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    EventBody,
    Failure,
    FleetProgress,
    MemberLog,
    RunState,
    Started,
    Warned,
)
from epochd_server.domain.validation import Evaluation
from epochd_server.domain.work import (
    FleetAdvanced,
    RunBegan,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    WorkMessage,
)
from epochd_server.runs.live import LiveRun

_logger = structlog.get_logger(__name__)

_SAME_RESULT = "It is trained again from its first epoch, to the same result; logged epochs are not repeated."


class Recorder:
    """Writes runs' logs. What comes together is written together.

    Args:
        ended: Is told of every run after its last event was written, or could not be.
    """

    def __init__(self, ended: Callable[[LiveRun], None]) -> None:
        self._ended = ended

    async def record(self, run: LiveRun, messages: Sequence[WorkMessage]) -> None:
        """Writes what a worker said of a run, in order."""
        if run.ended:
            return
        bodies: list[EventBody] = []
        last: WorkMessage | None = None
        for message in messages:
            if isinstance(message, RunBegan):
                bodies += self._begin(run, message)
            elif isinstance(message, RunLogged):
                bodies += self._new_logs(run, message)
            elif isinstance(message, FleetAdvanced):
                bodies += [news for news in message.news if _is_new(run, news)]
            else:
                last = message
        await self._guarded(run, bodies, last)

    async def fail(self, run: LiveRun, failure: Failure) -> None:
        """Ends a run as FAILED."""
        await self._guarded(run, (), RunFailed(run_id=run.run_id, failure=failure))

    async def cancel(self, run: LiveRun) -> None:
        """Ends a run as CANCELLED, after the epochs that its log tells of."""
        await self._guarded(run, (), RunStopped(run_id=run.run_id, epochs=run.last_epoch + 1))

    async def _guarded(self, run: LiveRun, bodies: Sequence[EventBody], last: WorkMessage | None) -> None:
        run.ended = last is not None
        try:
            if last is not None:
                await self._end(run, bodies, last)
            elif bodies:
                begins = isinstance(bodies[0], Started)
                await run.log.append(bodies, RunState.RUNNING if begins else None)
        except Exception:
            _logger.exception(
                "a run's log could not be written; it is left for the next start", run=run.run_id
            )
            run.ended = True
            run.log.close(EpochdError(Reason.INTERNAL))
        if run.ended:
            self._ended(run)

    async def _end(self, run: LiveRun, bodies: Sequence[EventBody], last: WorkMessage) -> None:
        """Writes the last event, and those that came with it, at once."""
        if isinstance(last, RunTrained):
            await run.log.succeed(bodies, trained_model(run, last), last.training_seconds)
        elif isinstance(last, RunFailed):
            await run.log.append([*bodies, last.failure], RunState.FAILED)
        elif isinstance(last, RunStopped):
            await run.log.append([*bodies, Cancelled(epochs=last.epochs)], RunState.CANCELLED)

    def _begin(self, run: LiveRun, began: RunBegan) -> list[EventBody]:
        interrupted, run.interrupted = run.interrupted, ""
        if run.begun:
            return (
                [Warned(reason="RUN_RESUMED", message=f"{interrupted} {_SAME_RESULT}")] if interrupted else []
            )
        run.begun = True
        return [replace(_started(run), device=began.device)]

    def _new_logs(self, run: LiveRun, message: RunLogged) -> Sequence[EpochLog]:
        logs = message.logs
        if logs[0].epoch <= run.last_epoch:
            logs = tuple(log for log in logs if log.epoch > run.last_epoch)
        if logs:
            run.last_epoch = logs[-1].epoch
        return logs


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
