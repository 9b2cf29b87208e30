"""The life of runs, as the rest of the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import structlog

from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import LabelChange, Labels
from epochd_server.domain.resources import run_name
from epochd_server.domain.runs import Queued, Run, RunState
from epochd_server.domain.specs import TrainingSpec
from epochd_server.runs.admission import QueueAdmission
from epochd_server.runs.fair_queue import Ticket
from epochd_server.runs.identifiers import RunIds
from epochd_server.runs.live import LiveRun, Shelf
from epochd_server.runs.log import RunLog, TailBudget
from epochd_server.runs.ports import Accepted, Executor, NewRun, Plan, Planner, RunStore, StoredRun, Versions
from epochd_server.runs.recording import Recorder
from epochd_server.runs.scheduler import Scheduler
from epochd_server.runs.settings import RunSettings
from epochd_server.runs.signature import estimated_seconds, rows_bytes, signature
from epochd_server.runs.starts import Starts
from epochd_server.runs.training import CohortTrainer
from epochd_server.runs.watching import StoreReader, follow, replay

_logger = structlog.get_logger(__name__)


class RunService:
    """Accepts runs, has them trained, and shows their logs.

    Make it inside a running event loop; :meth:`start` comes first, :meth:`close` last. All methods belong to
    that loop.

    Args:
        store: Runs and their logs.
        planner: Turns stored requests back into work.
        executor: Where cohorts run; it is started and closed here.
        settings: Windows and limits.
        versions: The registered versions, which runs may continue.
    """

    def __init__(
        self,
        store: RunStore,
        planner: Planner,
        executor: Executor,
        settings: RunSettings,
        versions: Versions,
    ) -> None:
        self._store = store
        self._executor = executor
        self._settings = settings
        self._ids = RunIds()
        self._live: dict[str, LiveRun] = {}
        self._shelf = Shelf(self._settings.queued_bytes)
        self._tails = TailBudget(self._settings.tail_events, self._settings.tail_bytes)
        self._recorder = Recorder(store, self._forget)
        self._trainer = CohortTrainer(
            store=store,
            planner=planner,
            executor=executor,
            shelf=self._shelf,
            recorder=self._recorder,
            live=self._live,
            again=self._enqueue_alone,
            starts=Starts(versions),
            worker_deaths=self._settings.worker_deaths,
        )
        self._scheduler = Scheduler(executor.slots, self._trainer.train, self._settings)
        self._recovery: asyncio.Task[None] | None = None
        self._admission = QueueAdmission(self._scheduler, self._settings)
        self._stopping = False

    async def start(self) -> None:
        """Starts the executor and goes on with the runs that had not ended when the server stopped.

        Returns when the workers are warm and every unfinished run can be watched; they are planned again and
        trained in the background.
        """
        _, unfinished = await asyncio.gather(self._executor.start(), self._store.unfinished())
        runs = [self._adopt(stored) for stored in unfinished]
        self._recovery = asyncio.create_task(self._recover(runs))

    async def submit(self, plan: Plan, client: str) -> Accepted:
        """Accepts a run; when this returns it is stored, and will end whatever happens to its client.

        Args:
            plan: What is to be trained.
            client: Whose share of the workers it takes.

        Raises:
            EpochdError: SERVER_STOPPING, QUEUE_FULL, CLIENT_QUEUE_FULL, REQUEST_ID_REUSED or STORAGE_UNAVAILABLE.
        """
        self._refuse_when_stopping()
        if (refusal := self._admission.refusal(client)) is not None:
            return await self._attach_or_refuse(plan, refusal)
        run_id = self._ids.new()
        model = plan.model or f"run-{run_id.lower()}"
        log = RunLog(self._tails)
        run = LiveRun(
            run_id=run_id, client=client, model=model, spec=plan.spec, log=log, started=plan.started
        )
        first = log.next_page([(datetime.now(UTC), Queued(run_id=run_id, model=model))])
        self._live[run_id] = run  # before it can be found in the store, so that no watcher misses its log
        try:
            with self._admission.accepting(client):
                accepted = await self._store.accept(_new_run(run, plan), first[0])
        except BaseException:
            self._withdraw_unaccepted(run)
            raise
        if not accepted.created:
            self._withdraw_unaccepted(run)
            await self._find(accepted.run_id)
            return accepted
        log.publish(first)
        self._shelf.put(run_id, plan.data)
        self._enqueue(run)
        return accepted

    async def attach(self, request_id: str, fingerprint: bytes) -> Accepted | None:
        """The run that had this request_id before, if there is one.

        Raises:
            EpochdError: REQUEST_ID_REUSED where it was for another request.
        """
        known = await self._store.find_request(request_id)
        if known is None:
            return None
        if known[1] != fingerprint:
            raise EpochdError(Reason.REQUEST_ID_REUSED)
        await self._find(known[0])
        return Accepted(known[0], created=False)

    async def watch(self, run_id: str, after_sequence: int = 0) -> AsyncGenerator[EventPage, None]:
        """Replays a run's events after a sequence number, then follows it to its end.

        Yields:
            The next events, in order: never empty, at most 256 and about a mebibyte.

        Raises:
            EpochdError: RUN_NOT_FOUND; SERVER_STOPPING where the run goes on after the next start.
        """
        found = await self._find(run_id)
        if isinstance(found, LiveRun):
            pages = follow(found.log, self._reader(run_id, found.spec), after_sequence)
        else:
            pages = replay(self._reader(run_id, found.run.spec), after_sequence)
        async for page in pages:
            yield page

    async def get(self, run_id: str) -> Run:
        """The run as it is now.

        Raises:
            EpochdError: RUN_NOT_FOUND.
        """
        return (await self._stored(run_id)).run

    async def page(
        self,
        *,
        limit: int,
        before: str | None = None,
        states: Sequence[RunState] = (),
        model: str | None = None,
        labels: Labels | None = None,
    ) -> list[Run]:
        """Runs that have these labels and whose ids are below ``before``, newest first; no states means all."""
        return await self._store.page(limit=limit, before=before, states=states, model=model, labels=labels)

    async def change_labels(self, run_id: str, change: LabelChange) -> Run:
        """Changes the labels of a run, and returns it.

        Raises:
            EpochdError: RUN_NOT_FOUND.
            InvalidInput: They are too many.
        """
        if await self._store.change_labels(run_id, change) is None:
            raise _not_found(run_id)
        return await self.get(run_id)

    async def cancel(self, run_id: str) -> Run:
        """Cancels a run: at once while it waits, else at its next epoch. One that has ended is left as it is.

        Returns:
            The run as it is now; it may be RUNNING until its epoch ends.

        Raises:
            EpochdError: RUN_NOT_FOUND.
        """
        found = await self._find(run_id)
        if isinstance(found, LiveRun):
            await found.log.changed(0)  # its acceptance may be on its way to the disk
            await self._cancel(found)
        return await self.get(run_id)

    async def delete(self, run_id: str) -> None:
        """Deletes a run that has ended, and its log.

        Raises:
            EpochdError: RUN_NOT_FOUND or RUN_NOT_TERMINAL.
        """
        stored = await self._stored(run_id)
        if not stored.run.state.is_terminal:
            raise EpochdError(
                Reason.RUN_NOT_TERMINAL,
                f"{run_name(run_id)} has not ended yet; cancel it first.",
                {"run": run_name(run_id)},
            )
        if not await self._store.delete(run_id):
            raise _not_found(run_id)

    async def drain(self, grace_seconds: float) -> bool:
        """Refuses new work and lets running cohorts finish; waiting runs are left for the next start.

        Args:
            grace_seconds: How long running cohorts may take.

        Returns:
            Whether all running cohorts finished.
        """
        self._stop_accepting()
        for run in self._live.values():
            if not run.training:
                run.log.close(EpochdError(Reason.SERVER_STOPPING))
        return await self._scheduler.finish(grace_seconds)

    async def close(self) -> None:
        """Stops everything at once. Runs that have not ended stay in the store as they are, to be resumed."""
        self._stop_accepting()
        await self._scheduler.close()
        if self._recovery is not None:
            await asyncio.gather(self._recovery, return_exceptions=True)
        await self._executor.close()
        for run in self._live.values():
            run.log.close(EpochdError(Reason.SERVER_STOPPING))
        self._live.clear()

    def _stop_accepting(self) -> None:
        self._stopping = True
        self._scheduler.stop()
        if self._recovery is not None:
            self._recovery.cancel()

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise EpochdError(Reason.SERVER_STOPPING)

    async def _attach_or_refuse(self, plan: Plan, refusal: EpochdError) -> Accepted:
        found = await self.attach(plan.request_id, plan.fingerprint) if plan.request_id else None
        if found is None:
            raise refusal
        return found

    def _withdraw_unaccepted(self, run: LiveRun) -> None:
        del self._live[run.run_id]
        run.log.close(_not_found(run.run_id))

    async def _find(self, run_id: str) -> LiveRun | StoredRun:
        """The run in memory, or as stored if it has ended.

        A run is live from before it is stored until after its last event is. One that is stored, unfinished and
        not live can therefore only be one whose acceptance was stored but reported as failed: it is adopted.
        """
        if run_id in self._live:
            return self._live[run_id]
        stored = await self._stored(run_id)
        if stored.run.state.is_terminal:
            return stored
        if run_id not in self._live:  # it may have come, and gone, since the store was asked
            stored = await self._stored(run_id)
        if stored.run.state.is_terminal:
            return stored
        self._refuse_when_stopping()
        run = self._live.get(run_id)
        if run is None:
            run = self._adopt(stored)
            await self._resume(run)
        return run

    async def _stored(self, run_id: str) -> StoredRun:
        stored = await self._store.get(run_id)
        if stored is None:
            raise _not_found(run_id)
        return stored

    def _reader(self, run_id: str, spec: TrainingSpec) -> StoreReader:
        return StoreReader(self._store, run_id, parameters=spec.logging.parameters)

    async def _cancel(self, run: LiveRun) -> None:
        run.cancelled = True
        if self._scheduler.withdraw(run.run_id):
            self._shelf.take(run.run_id)
            await self._recorder.cancel(run)
        else:
            self._executor.stop_runs([run.run_id])

    def _adopt(self, stored: StoredRun) -> LiveRun:
        """Takes an unfinished run into memory, to be planned again."""
        run = stored.run
        live = LiveRun(
            run_id=run.run_id,
            client=stored.client,
            model=run.model,
            spec=run.spec,
            log=RunLog(self._tails, run.latest_sequence),
            begun=run.state is RunState.RUNNING,
            last_epoch=-1 if run.latest_log is None else run.latest_log.epoch,
            interrupted="The server was restarted.",
        )
        self._live[run.run_id] = live
        return live

    async def _recover(self, runs: Sequence[LiveRun]) -> None:
        if runs:
            _logger.info("going on with unfinished runs", runs=len(runs))
        for run in runs:
            await self._resume(run)

    async def _resume(self, run: LiveRun) -> None:
        """Plans an adopted run again and lets it wait for its turn."""
        data = None if run.cancelled else await self._trainer.plan(run)
        if run.cancelled:
            await self._recorder.cancel(run)
        elif data is not None:
            self._shelf.put(run.run_id, data)
            self._enqueue(run)

    def _enqueue(self, run: LiveRun, *, alone: bool = False) -> None:
        started = run.started
        if self._stopping or started is None:
            run.log.close(EpochdError(Reason.SERVER_STOPPING))
            return
        self._scheduler.submit(
            Ticket(
                run_id=run.run_id,
                client=run.client,
                signature=("alone", run.run_id) if alone or started.members else signature(started),
                seconds=estimated_seconds(started),
                nbytes=rows_bytes(started),
                since=self._scheduler.now(),
            )
        )

    def _enqueue_alone(self, run: LiveRun) -> None:
        """Lets a run wait again by itself, so that what killed its worker cannot take its neighbours along twice."""
        self._enqueue(run, alone=True)

    def _forget(self, run: LiveRun) -> None:
        self._live.pop(run.run_id, None)


def _new_run(run: LiveRun, plan: Plan) -> NewRun:
    return NewRun(
        run_id=run.run_id,
        model=run.model,
        spec=run.spec,
        request=plan.request,
        request_id=plan.request_id,
        fingerprint=plan.fingerprint,
        client=run.client,
        create_time=datetime.now(UTC),
        dataset=plan.dataset,
        labels=plan.labels,
    )


def _not_found(run_id: str) -> EpochdError:
    return EpochdError(Reason.RUN_NOT_FOUND, f"No run {run_name(run_id)}.", {"run": run_name(run_id)})
