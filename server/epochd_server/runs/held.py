"""The runs that this server has: those it accepted, and those it claimed as no living server had them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import structlog

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.runs import RunState
from epochd_server.domain.stopping import Wish
from epochd_server.domain.work import DatasetFile
from epochd_server.runs.admission import QueueAdmission
from epochd_server.runs.checkpointing import CheckpointKeeper
from epochd_server.runs.durable import durably
from epochd_server.runs.fair_queue import Ticket
from epochd_server.runs.limits import LimitKeeper
from epochd_server.runs.live import LiveRun, Shelf
from epochd_server.runs.log import RunLog, TailBudget
from epochd_server.runs.ports import Checkpoints, Executor, Planner, RunStore, StoredRun, Versions
from epochd_server.runs.recording import Recorder
from epochd_server.runs.scheduler import Scheduler
from epochd_server.runs.settings import RunSettings
from epochd_server.runs.signature import estimated_seconds, rows_bytes, signature
from epochd_server.runs.starts import Starts
from epochd_server.runs.training import CohortTrainer

_SAVING_SECONDS = 2.0
"""So long a stopping server lets runs come to the end of an epoch, to be saved."""

RESTARTED = "The server was restarted."
TAKEN_OVER = "The server that trained it is gone, and another one has it now."

_WORTH_SHARING_SECONDS = 2.0

_logger = structlog.get_logger(__name__)


class HeldRuns:
    """Lets runs wait for their turn, has them trained, and gives them up when another server has claimed them.

    A run is here from before it is stored, or claimed, until after its last event is stored, or its claim is lost.

    Args:
        store: Runs and their logs.
        planner: Turns stored requests back into work.
        executor: Where cohorts run.
        settings: Windows and limits.
        versions: The registered versions, which runs may continue.
        checkpoints: Where runs in training are.
        tails: Memory for the newest events of logs.
        arrived: Is told of every run that was claimed.
        now: The time.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        planner: Planner,
        executor: Executor,
        settings: RunSettings,
        versions: Versions,
        checkpoints: Checkpoints,
        tails: TailBudget,
        arrived: Callable[[str], None],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._executor = executor
        self._settings = settings
        self._tails = tails
        self._arrived = arrived
        self._live: dict[str, LiveRun] = {}
        self._shelf = Shelf(settings.queued_bytes)
        self._keeper = CheckpointKeeper(checkpoints)
        self._limits = LimitKeeper(self.ask)
        self._recorder = Recorder(store, self._leave, self.lose, now)
        self._trainer = CohortTrainer(
            store=store,
            planner=planner,
            executor=executor,
            shelf=self._shelf,
            recorder=self._recorder,
            live=self._live,
            again=self._enqueue_alone,
            starts=Starts(versions),
            keeper=self._keeper,
            limits=self._limits,
            settings=settings,
        )
        self._scheduler = Scheduler(executor.slots, self._trainer.train, settings)
        self._recoveries: set[asyncio.Task[None]] = set()
        self._admission = QueueAdmission(self._scheduler, settings)
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether no run begins any more."""
        return self._stopping

    @property
    def room(self) -> int:
        """How many further runs may wait here."""
        return 0 if self._stopping else max(0, self._settings.max_queued - self._scheduler.waiting)

    def get(self, run_id: str) -> LiveRun | None:
        """The run, if this server has it."""
        return self._live.get(run_id)

    def living(self) -> list[LiveRun]:
        """Those that are in the store, and unfinished as far as this server knows."""
        return [run for run in self._live.values() if run.log.newest and not run.ended]

    def knows(self, run_ids: Iterable[str]) -> list[LiveRun]:
        """Those of these runs that this server has."""
        return [run for run_id in run_ids if (run := self._live.get(run_id)) is not None]

    def refusal(self, client: str) -> EpochdError | None:
        """Why a client's next run may not wait, and when it may try again; None where it may."""
        return self._admission.refusal(client)

    @contextmanager
    def accepting(self, run: LiveRun) -> Iterator[None]:
        """A run is stored in the block; it is here before it can be found there, so that no watcher misses its log."""
        self._live[run.run_id] = run
        with self._admission.accepting(run.client):
            yield

    def withdraw(self, run: LiveRun, error: EpochdError) -> None:
        """A run was not stored after all."""
        self._forget(run)
        run.log.close(error)

    def begin(self, run: LiveRun, data: TrainingArrays | DatasetFile) -> None:
        """Lets a run that is stored wait for its turn."""
        self._limits.watch(run)
        self._shelf.put(run.run_id, data)
        self._enqueue(run)

    def tidy(self) -> None:
        """Lets go of what a crash left, in the background."""
        self._keeper.tidy()

    def adopt(self, stored: Sequence[StoredRun], interrupted: str = TAKEN_OVER) -> None:
        """Goes on with runs that this server has claimed, in the background; they can be watched at once."""
        new = [run for one in stored if (run := self._enter(one, interrupted)) is not None]
        if new and not self._stopping:
            _logger.info("going on with unfinished runs", runs=len(new))
            recovery = asyncio.create_task(self._resume_all(new))
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)

    @property
    def idle_slots(self) -> int:
        """How many cohorts could be trained at once as nothing waits."""
        return 0 if self._stopping else self._scheduler.idle_slots

    def spare(self, slots: int) -> list[LiveRun]:
        """Takes runs out of the queue that an idle server with so many slots would train sooner.

        A short queue is worked off before another server could begin. Of a long one the other gets the part that its
        slots are of all, and at least a run for each: those that came last, and that nobody began.
        """
        if self._stopping or self._scheduler.seconds_waiting < _WORTH_SHARING_SECONDS:
            return []
        spared: list[LiveRun] = []
        for ticket in self._scheduler.surplus(slots):
            run = self._live.get(ticket.run_id)
            if run is not None and not run.begun and self._scheduler.withdraw(run.run_id):
                spared.append(run)
        return spared

    def give_up(self, run: LiveRun) -> None:
        """Leaves a run that does not wait here to another server; those who watch it here will follow it there."""
        run.ended = True
        self._shelf.take(run.run_id)
        self._forget(run)
        run.log.close()

    def take_back(self, run: LiveRun) -> None:
        """Lets a run that was taken out of the queue wait again."""
        if not run.ended:
            self._enqueue(run)

    def lose(self, run: LiveRun) -> None:
        """Leaves a run to the server that has claimed it; those who watch it here will follow it there."""
        _logger.warning("a run was taken over by another server", run=run.run_id)
        if not self._scheduler.withdraw(run.run_id):
            self._executor.stop_runs([run.run_id])
        self.give_up(run)

    async def ask(self, run: LiveRun, wish: Wish, reason: str = "") -> None:
        """Does what is wanted of a run: at once while it waits, else at its next epoch.

        What is done already changes nothing, and a run that is being cancelled is left to that.

        Args:
            run: The run.
            wish: What is wanted.
            reason: Why, where no client wants it.
        """
        if run.ended or (run.cancelled and not wish.cancels):
            return
        if wish is Wish.RESUME:
            await self._resume_paused(run)
        elif not (wish is Wish.PAUSE and run.paused):
            run.wish, run.reason = wish, reason
            await self._stop(run)

    async def _stop(self, run: LiveRun) -> None:
        waits = run.paused or self._scheduler.is_waiting(run.run_id)
        if not waits:
            self._executor.stop_runs([run.run_id])
        elif run.needs_no_worker:
            self._scheduler.withdraw(run.run_id)
            self._shelf.take(run.run_id)
            await self._recorder.stop(run)
        elif run.paused:  # a worker gives what it has reached, as soon as it has it again
            run.paused = False
            await self._resume(run)

    async def _resume_paused(self, run: LiveRun) -> None:
        if run.wish is Wish.PAUSE:
            run.wish = None  # its worker stops it all the same; it then waits for another turn
        if run.paused:
            run.paused, run.interrupted = False, "It was resumed."
            await self._recorder.resume(run)
            await self._resume(run)

    def stop(self) -> list[LiveRun]:
        """Begins nothing any more; running cohorts go on. Gives what waited, and was told so."""
        self.halt()
        waiting = [run for run in self.living() if not run.training]
        for run in waiting:
            self._scheduler.withdraw(run.run_id)
            run.log.close(EpochdError(Reason.SERVER_STOPPING))
        return waiting

    async def finish(self, seconds: float) -> bool:
        """Waits for running cohorts, at most so long, and then for them to save where they are; whether all ended."""
        if await self._scheduler.finish(seconds):
            return True
        self._executor.stop_runs([run.run_id for run in self._live.values() if run.training])
        await self._scheduler.finish(_SAVING_SECONDS)
        return False

    async def close(self) -> None:
        """Abandons everything at once; what has not ended stays in the store as it is."""
        self.halt()
        await self._scheduler.close()
        await asyncio.gather(*self._recoveries, return_exceptions=True)
        await self._keeper.close()

    def clear(self) -> None:
        """Tells all who watch that the server stops."""
        for run in self._live.values():
            run.log.close(EpochdError(Reason.SERVER_STOPPING))
            self._limits.forget(run)
        self._live.clear()

    def halt(self) -> None:
        """Begins nothing any more."""
        self._stopping = True
        self._scheduler.stop()
        for recovery in self._recoveries:
            recovery.cancel()

    def _enter(self, stored: StoredRun, interrupted: str) -> LiveRun | None:
        """Takes a claimed run into memory, to be planned again; None where it is there already."""
        run = stored.run
        if stored.claim is None:
            raise ValueError(f"run {run.run_id} is not this server's")
        if (known := self._live.get(run.run_id)) is not None:
            known.claim = stored.claim
            return None
        entered = LiveRun(
            run_id=run.run_id,
            client=stored.client,
            model=run.model,
            spec=run.spec,
            claim=stored.claim,
            log=RunLog(self._tails, run.latest_sequence),
            newest_time=run.start_time or run.create_time,
            begun=run.start_time is not None,
            last_epoch=-1 if run.latest_log is None else run.latest_log.epoch,
            wish=stored.wish,
            paused=run.state is RunState.PAUSED,
            interrupted=interrupted,
            deaths=stored.worker_deaths,
        )
        self._live[run.run_id] = entered
        self._arrived(run.run_id)
        return entered

    async def _resume_all(self, runs: Sequence[LiveRun]) -> None:
        for run in runs:
            newest = await durably(partial(self._store.events, run.run_id, run.log.newest - 1, 1))
            run.newest_time = max((run.newest_time, *(event.time for event in newest)))
            if not run.paused or run.cancelled:
                await self._resume(run)
            elif run.wish is Wish.RESUME:
                await self._resume_paused(run)
            else:
                await self._trainer.plan(run)  # its limits hold while it is paused, too
                self._limits.watch(run)

    async def _resume(self, run: LiveRun) -> None:
        """Plans a claimed run again and lets it wait for its turn."""
        data = None if run.needs_no_worker else await self._trainer.plan(run)
        if run.needs_no_worker:
            await self._recorder.stop(run)
        elif data is not None and not run.ended:
            self.begin(run, data)

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

    def _leave(self, run: LiveRun) -> None:
        """A run has ended, or its log is lost."""
        self._forget(run)
        self._keeper.forget(run)

    def _forget(self, run: LiveRun) -> None:
        if self._live.get(run.run_id) is run:
            del self._live[run.run_id]
            self._limits.forget(run)
