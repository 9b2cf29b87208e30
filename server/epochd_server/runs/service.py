"""The life of runs, as the rest of the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import LabelChange, Labels
from epochd_server.domain.once import AskedOnce, Once
from epochd_server.domain.resources import run_name
from epochd_server.domain.runs import Event, Queued, Run, RunState
from epochd_server.domain.stopping import Wish
from epochd_server.runs.claiming import ClaimKeeper
from epochd_server.runs.clock import SteadyClock
from epochd_server.runs.held import RESTARTED, HeldRuns
from epochd_server.runs.identifiers import RunIds
from epochd_server.runs.live import LiveRun
from epochd_server.runs.log import RunLog, TailBudget
from epochd_server.runs.mirrors import Mirrors
from epochd_server.runs.ports import (
    Accepted,
    Checkpoints,
    Claims,
    Executor,
    NewRun,
    Plan,
    Planner,
    RunStore,
    StoredRun,
    Versions,
)
from epochd_server.runs.settings import RunSettings
from epochd_server.runs.watching import StoreReader, WatchMemory, follow, replay

_WISH_SECONDS = 1.0
"""So long CancelRun waits until another server has cancelled a run that waits there."""


class RunService:
    """Accepts runs, has them trained, and shows their logs, also those of runs that other servers train.

    Make it inside a running event loop; :meth:`start` comes first, :meth:`close` last. All methods belong to
    that loop.

    Args:
        store: Runs and their logs.
        planner: Turns stored requests back into work.
        executor: Where cohorts run; it is started and closed here.
        settings: Windows and limits.
        versions: The registered versions, which runs may continue.
        claims: Which of the runs are this server's.
        checkpoints: Where runs in training are.
        clock: Tells the time.
    """

    def __init__(
        self,
        store: RunStore,
        planner: Planner,
        executor: Executor,
        settings: RunSettings,
        versions: Versions,
        claims: Claims,
        checkpoints: Checkpoints,
        clock: SteadyClock | None = None,
    ) -> None:
        self._store = store
        self._claims = claims
        self._executor = executor
        self._ids = RunIds()
        self._clock = clock or SteadyClock()
        self._tails = TailBudget(settings.tail_events, settings.tail_bytes)
        self._watch_memory = WatchMemory(settings.watch_bytes)
        self._mirrors = Mirrors(self._reader_of, self._tails)
        self._held = HeldRuns(
            store=store,
            planner=planner,
            executor=executor,
            settings=settings,
            versions=versions,
            checkpoints=checkpoints,
            tails=self._tails,
            arrived=self._mirrors.end,
            now=self._clock.now,
        )
        self._keeper = ClaimKeeper(claims, self._held, self._mirrors)

    async def start(self) -> None:
        """Starts the executor and goes on with the runs that had not ended when their servers stopped.

        Returns when the workers are warm and every unfinished run can be watched; they are planned again and
        trained in the background.
        """
        await self._executor.start()  # first: until it is warm, others may go on with runs that nobody has
        self._held.adopt(await self._keeper.join(), RESTARTED)
        self._held.tidy()

    async def submit(self, plan: Plan, client: str) -> Accepted:
        """Accepts a run; when this returns it is stored, and will end whatever happens to its client.

        Args:
            plan: What is to be trained.
            client: Whose share of the workers it takes.

        Raises:
            EpochdError: SERVER_STOPPING, QUEUE_FULL, CLIENT_QUEUE_FULL, REQUEST_ID_REUSED or STORAGE_UNAVAILABLE.
        """
        self._refuse_when_stopping()
        if (refusal := self._held.refusal(client)) is not None:
            return await self._attach_or_refuse(plan, refusal)
        run_id = self._ids.new()
        model = plan.model or f"run-{run_id.lower()}"
        log = RunLog(self._tails)
        now = self._clock.now()
        run = LiveRun(
            run_id=run_id,
            client=client,
            model=model,
            spec=plan.spec,
            log=log,
            newest_time=now,
            started=plan.started,
            limits=plan.limits,
        )
        first = log.next_page([(now, Queued(run_id=run_id, model=model))])
        accepted = await self._accept(run, plan, first[0])
        if accepted.created:
            log.publish(first)
            self._held.begin(run, plan.data)
        else:
            await self._find(accepted.run_id)
        return accepted

    async def attach(self, asked: AskedOnce) -> Accepted | None:
        """The run that the same request made before, if there is one.

        Raises:
            EpochdError: REQUEST_ID_REUSED where its id was that of another request.
        """
        run_id = await self._store.find_made(asked)
        if run_id is None:
            return None
        await self._find(run_id)
        return Accepted(run_id, created=False)

    async def watch(self, run_id: str, after_sequence: int = 0) -> AsyncGenerator[EventPage, None]:
        """Replays a run's events after a sequence number, then follows it to its end.

        Yields:
            The next events, in order: never empty, at most 256 and about a mebibyte.

        Raises:
            EpochdError: RUN_NOT_FOUND; SERVER_STOPPING where the run goes on after the next start.
        """
        while True:
            found = await self._find(run_id)
            with self._watch_memory.watching(), self._log_of(found) as log:
                reader = self._reader_of(found)
                pages = replay(reader, after_sequence) if log is None else follow(log, reader, after_sequence)
                async for page in pages:
                    yield page
                    after_sequence = page.last
            if log is None or log.ended:
                return
            # another server goes on with the run, or this one does since: it is looked for again

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

    async def change_labels(self, run_id: str, change: LabelChange, once: Once[Run] | None = None) -> Run:
        """Changes the labels of a run, and returns it.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
            InvalidInput: They are too many.
        """
        return await self._store.change_labels(run_id, change, once)

    async def cancel(self, run_id: str, *, keep_weights: bool = False, once: Once[Run] | None = None) -> Run:
        """Cancels a run: at once while it waits, else at its next epoch. One that has ended is left as it is.

        Once this returns, the run is cancelled whatever happens to this server, or to the one that trains it.

        Args:
            run_id: The run.
            keep_weights: Whether a version is made of what it has reached, if it has begun.
            once: The request, where it has an id.

        Returns:
            The run as it is now; it may be RUNNING until its epoch ends.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        return await self._wish(run_id, Wish.KEEP if keep_weights else Wish.CANCEL, once)

    async def pause(self, run_id: str, once: Once[Run] | None = None) -> Run:
        """Pauses a run: at once while it waits, else at its next epoch.

        One that is paused already, has ended or is being cancelled is left as it is.

        Returns:
            The run as it is now; it may be RUNNING until its epoch ends.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        return await self._wish(run_id, Wish.PAUSE, once)

    async def resume(self, run_id: str, once: Once[Run] | None = None) -> Run:
        """Lets a paused run go on from where it was; one that is not paused is left as it is.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        return await self._wish(run_id, Wish.RESUME, once)

    async def heed(self, run_id: str) -> None:
        """Does what was wished of a run of this server and is not done, as far as that is so.

        Whoever wished it may have been cut off after the wish was stored, and before it was carried out.
        """
        run = self._held.get(run_id)
        stored = None if run is None else await self._store.get(run_id)
        if run is not None and stored is not None and stored.wish is not None:
            await self._held.ask(run, stored.wish)

    async def _wish(self, run_id: str, wish: Wish, once: Once[Run] | None) -> Run:
        """Stores a wish, and only then has it carried out, which takes it back: a crash in between loses neither."""
        found = await self._find(run_id)
        if isinstance(found, LiveRun):
            await found.log.changed(0)  # its acceptance may be on its way to the disk
            await self._claims.wish(run_id, wish, once)
            await self._held.ask(found, wish)
        elif found.run.state.is_terminal:
            await self._claims.wish(run_id, wish, once)
        else:
            await self._wish_elsewhere(found, wish, once)
        return await self.get(run_id)

    async def delete(self, run_id: str, once: Once[object] | None = None) -> None:
        """Deletes a run that has ended, and its log.

        Raises:
            EpochdError: RUN_NOT_FOUND, RUN_NOT_TERMINAL or REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        await self._store.delete(run_id, once)

    async def drain(self, grace_seconds: float) -> bool:
        """Refuses new work and lets running cohorts finish; what waits is left to others, or for the next start.

        Args:
            grace_seconds: How long running cohorts may take.

        Returns:
            Whether all running cohorts finished.
        """
        waiting = self._held.stop()
        self._mirrors.close()
        await self._keeper.free(waiting)
        return await self._held.finish(grace_seconds)

    async def close(self) -> None:
        """Stops everything at once. Runs that have not ended stay in the store as they are, to be resumed."""
        self._held.halt()
        await self._keeper.close()
        await self._held.close()
        await self._executor.close()
        await self._keeper.leave()
        self._mirrors.close()
        self._held.clear()

    def _refuse_when_stopping(self) -> None:
        if self._held.stopping:
            raise EpochdError(Reason.SERVER_STOPPING)

    async def _attach_or_refuse(self, plan: Plan, refusal: EpochdError) -> Accepted:
        found = await self.attach(plan.asked) if plan.asked else None
        if found is None:
            raise refusal
        return found

    async def _accept(self, run: LiveRun, plan: Plan, first: Event) -> Accepted:
        created = False
        with self._held.accepting(run):
            try:
                accepted = await self._store.accept(_new_run(run, plan), first)
                created = accepted.created
            finally:
                if not created:
                    self._held.withdraw(run, _not_found(run.run_id))
        return accepted

    async def _find(self, run_id: str) -> LiveRun | StoredRun:
        """The run in memory, or as stored if it has ended or is another server's.

        A run of this server is live from before it is stored until after its last event is. One that is stored,
        unfinished and not live can therefore only be one whose acceptance was stored but reported as failed: it is
        adopted.
        """
        if run := self._held.get(run_id):
            return run
        stored = await self._stored(run_id)
        if not stored.run.state.is_terminal and self._held.get(run_id) is None:
            stored = await self._stored(run_id)  # it may have come, and gone, since the store was asked
        if stored.run.state.is_terminal:
            return stored
        self._refuse_when_stopping()
        if stored.claim is not None and self._held.get(run_id) is None:
            self._held.adopt([stored], RESTARTED)
        return self._held.get(run_id) or stored

    async def _stored(self, run_id: str) -> StoredRun:
        stored = await self._store.get(run_id)
        if stored is None:
            raise _not_found(run_id)
        return stored

    def _reader_of(self, found: LiveRun | StoredRun) -> StoreReader:
        run = found if isinstance(found, LiveRun) else found.run
        return StoreReader(self._store, run.run_id, self._watch_memory)

    def _log_of(self, found: LiveRun | StoredRun) -> AbstractContextManager[RunLog | None]:
        """The log of a run that has not ended, wherever it is; None where it has."""
        if isinstance(found, LiveRun):
            return nullcontext(found.log)
        return nullcontext() if found.run.state.is_terminal else self._mirrors.log(found)

    async def _wish_elsewhere(self, stored: StoredRun, wish: Wish, once: Once[Run] | None) -> None:
        """Has another server do what is wanted; where it waits that is done at once, which is waited for a moment."""
        with self._mirrors.log(stored) as log:
            await self._claims.wish(stored.run.run_id, wish, once)
            if stored.run.state in (RunState.QUEUED, RunState.PAUSED):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WISH_SECONDS):
                        await log.changed(log.newest)


def _new_run(run: LiveRun, plan: Plan) -> NewRun:
    return NewRun(
        run_id=run.run_id,
        model=run.model,
        spec=run.spec,
        request=plan.request,
        asked=plan.asked,
        fingerprint=plan.fingerprint,
        client=run.client,
        create_time=run.newest_time,
        dataset=plan.dataset,
        validation_dataset=plan.validation_dataset,
        labels=plan.labels,
    )


def _not_found(run_id: str) -> EpochdError:
    return EpochdError(Reason.RUN_NOT_FOUND, f"No run {run_name(run_id)}.", {"run": run_name(run_id)})
