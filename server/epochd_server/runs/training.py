"""Training a cohort: from tickets to work, from the executor's messages to events in the runs' logs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial

import structlog

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.runs import Failure, MemberLog
from epochd_server.domain.work import (
    CohortWork,
    DatasetFile,
    FleetAdvanced,
    RunBegan,
    RunCheckpointed,
    RunLogged,
    RunWork,
    WorkerDied,
    WorkMessage,
)
from epochd_server.runs.checkpointing import CheckpointKeeper
from epochd_server.runs.durable import durably
from epochd_server.runs.fair_queue import Ticket
from epochd_server.runs.identifiers import RunIds
from epochd_server.runs.limits import LimitKeeper
from epochd_server.runs.live import LiveRun, Shelf
from epochd_server.runs.ports import Executor, Planner, RunStore
from epochd_server.runs.recording import Recorder
from epochd_server.runs.settings import RunSettings
from epochd_server.runs.signature import estimated_seconds
from epochd_server.runs.starts import Starts
from epochd_server.runs.watching import StoreReader

_logger = structlog.get_logger(__name__)


class CohortTrainer:
    """Trains cohorts on an executor, and writes down what becomes of their runs.

    Args:
        store: Where requests come from.
        planner: Decodes a stored request again.
        executor: Where cohorts run.
        shelf: The rows of waiting runs.
        recorder: Writes the runs' logs.
        live: Runs by id.
        again: Lets a run whose worker died wait for another turn.
        starts: Finds what runs begin with that continue a version.
        keeper: Keeps where runs are.
        limits: Cancels those that are in training for too long.
        settings: How often runs are saved, and how many deaths of workers one may cause.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        planner: Planner,
        executor: Executor,
        shelf: Shelf,
        recorder: Recorder,
        live: Mapping[str, LiveRun],
        again: Callable[[LiveRun], None],
        starts: Starts,
        keeper: CheckpointKeeper,
        limits: LimitKeeper,
        settings: RunSettings,
    ) -> None:
        self._store = store
        self._planner = planner
        self._executor = executor
        self._shelf = shelf
        self._recorder = recorder
        self._live = live
        self._again = again
        self._starts = starts
        self._keeper = keeper
        self._limits = limits
        self._settings = settings
        self._ids = RunIds()

    async def train(self, tickets: Sequence[Ticket]) -> None:
        """Trains runs together until every one of them has ended, or waits for another turn."""
        # one that another server has taken since is not there any more
        runs = [run for ticket in tickets if (run := self._live.get(ticket.run_id)) is not None]
        for run in runs:
            run.training, run.halted = True, False
        works = [work for work in await asyncio.gather(*map(self._work, runs)) if work is not None]
        if not works:
            return
        wanted = {work.run_id for work in works}
        unfinished = [run for run in runs if run.run_id in wanted]
        try:
            work = CohortWork(
                cohort_id=self._ids.new(),
                runs=tuple(works),
                checkpoint_seconds=self._settings.checkpoint_seconds,
            )
            await self._execute(work, {run.run_id: run for run in unfinished})
        except WorkerDied as death:
            await asyncio.gather(*(self._after_death(run, death) for run in unfinished if not run.ended))
            return
        except Exception:
            _logger.exception("a cohort failed", runs=[run.run_id for run in unfinished])
        left = [run for run in unfinished if not run.ended]
        await asyncio.gather(*(self._recorder.fail(run, _internal()) for run in left if not run.halted))
        for run in left:
            self._leave(run)

    def _leave(self, run: LiveRun) -> None:
        """A run was stopped: it waits for another turn, unless it is paused."""
        run.training = False
        if run.halted and not run.paused and not run.ended:
            run.interrupted = "It was stopped."
            self._again(run)

    async def plan(self, run: LiveRun) -> TrainingArrays | DatasetFile | None:
        """A run's rows out of its stored request; None where it can no longer be trained, and has failed."""
        try:
            request = await durably(lambda: self._store.request(run.run_id))
            if request is None:
                raise EpochdError(Reason.RUN_NOT_FOUND)
            plan = await durably(lambda: self._planner.replan(request))
        except EpochdError as error:
            await self._recorder.fail(run, Failure(reason=error.reason.value, message=error.message))
            return None
        except Exception:
            _logger.exception("a stored request could not be planned again", run=run.run_id)
            await self._recorder.fail(run, _internal())
            return None
        run.started, run.limits = plan.started, plan.limits
        return plan.data

    async def _work(self, run: LiveRun) -> RunWork | None:
        data = self._shelf.take(run.run_id)
        if isinstance(data, DatasetFile) and not await asyncio.to_thread(_hold, data):
            data = None
        if data is None and not run.needs_no_worker:
            data = await self.plan(run)
        if run.needs_no_worker:
            await self._recorder.stop(run)
            self._leave(run)
            return None
        if data is None or run.ended:
            return None
        return await self._prepared(run, data)

    async def _prepared(self, run: LiveRun, data: TrainingArrays | DatasetFile) -> RunWork | None:
        """The work of a run; None where the version that it continues is gone, and the run has failed."""
        started = run.started
        if started is None:
            raise RuntimeError(f"run {run.run_id} is trained without a plan")
        try:
            initial = await durably(lambda: self._starts.of(started, data))
        except EpochdError as error:
            message = f"The version that it was to continue cannot be read: {error.message}"
            await self._recorder.fail(run, Failure(reason=error.reason.value, message=message))
            return None
        checkpoint = await self._keeper.recall(run)
        if not started.members:
            return RunWork(
                run_id=run.run_id, spec=run.spec, data=data, initial=initial, checkpoint=checkpoint
            )
        await self._recall_members(run)
        return RunWork(
            run_id=run.run_id,
            spec=run.spec,
            data=data,
            members=started.members,
            seconds=estimated_seconds(started),
            initial=initial,
            checkpoint=checkpoint,
        )

    async def _recall_members(self, run: LiveRun) -> None:
        """Finds out which epochs of its members a fleet's log tells of, where another process began it."""
        if not (run.begun and run.spec.logging.members and not run.last_epochs):
            return
        reader = StoreReader(self._store, run.run_id)
        sequence = 0
        while page := await durably(partial(reader.after, sequence)):
            sequence = page[-1].sequence
            for event in page:
                if isinstance(event.body, MemberLog):
                    run.last_epochs[event.body.key] = event.body.log.epoch

    async def _execute(self, work: CohortWork, runs: Mapping[str, LiveRun]) -> None:
        try:
            async with aclosing(self._executor.run(work)) as deliveries:
                async for delivery in deliveries:
                    await self._deliver(delivery, runs)
        finally:
            for run in runs.values():
                self._limits.left(run)

    async def _deliver(self, delivery: Sequence[WorkMessage], runs: Mapping[str, LiveRun]) -> None:
        by_run: dict[str, list[WorkMessage]] = {}
        for message in delivery:
            by_run.setdefault(message.run_id, []).append(message)
            if isinstance(message, RunBegan):
                self._limits.began(runs[message.run_id])
        await self._recorder.record([(runs[run_id], messages) for run_id, messages in by_run.items()])
        await self._keeper.save(
            [
                (runs[message.run_id], message.checkpoint)
                for message in delivery
                if isinstance(message, RunCheckpointed)
            ]
        )
        unwanted = [run_id for run_id, messages in by_run.items() if _is_unwanted(runs[run_id], messages)]
        if unwanted:
            self._executor.stop_runs(unwanted)

    async def _after_death(self, run: LiveRun, death: WorkerDied) -> None:
        run.deaths += death.deaths
        await durably(partial(self._store.note_worker_deaths, run.run_id, run.claim, run.deaths))
        _logger.warning("worker died", run=run.run_id, evidence=death.evidence, deaths=run.deaths)
        if run.needs_no_worker:
            await self._recorder.stop(run)
            self._leave(run)
        elif run.deaths >= self._settings.worker_deaths:
            await self._recorder.fail(run, _worker_died(death, run.deaths))
        else:
            run.training = False
            run.interrupted = f"Its worker process {death.evidence}."
            self._again(run)


def _hold(data: DatasetFile) -> bool:
    """Marks local copies of datasets as used now, so that a cache keeps them; whether they are still there."""
    try:
        written = os.stat(data.path).st_mtime_ns
    except FileNotFoundError:
        return False
    with suppress(OSError):  # of a file that is no copy, in a folder that cannot be written to
        os.utime(data.path, ns=(time.time_ns(), written))
    return not isinstance(data.validation, DatasetFile) or _hold(data.validation)


def _is_unwanted(run: LiveRun, messages: Sequence[WorkMessage]) -> bool:
    """Whether a run goes on that nobody wants: its log is lost, or it was to stop on its way to the worker."""
    goes_on = isinstance(messages[-1], RunBegan | RunLogged | FleetAdvanced | RunCheckpointed)
    return goes_on and (run.ended or (run.wish is not None and isinstance(messages[0], RunBegan)))


def _internal() -> Failure:
    return Failure(
        reason=Reason.INTERNAL.value,
        message="The training failed for a reason that is not yours.",
        hint="The server's log has the details under this run's id.",
    )


def _worker_died(death: WorkerDied, deaths: int) -> Failure:
    return Failure(
        reason="WORKER_DIED",
        message=f"The worker process that trained this run died {deaths} times; the last one {death.evidence}.",
        hint="If it was killed for memory, train on fewer rows or a smaller model, or give the server more memory.",
    )
