"""The executor of one machine: spawned worker processes, each training one cohort at a time on one core."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog

from epochd_server.domain.work import CohortWork, RunFailed, RunStopped, RunTrained, WorkMessage
from epochd_server.executor.assignments import Assignment
from epochd_server.executor.fleets import FleetTraining
from epochd_server.executor.packing import Unpacker, pack
from epochd_server.executor.process import WorkerProcess, WorkerStartError
from epochd_server.executor.wire import Report, TrainCohort, Work

_PATIENCE_SECONDS = 1.0
"""So long a cohort waits for a worker before another one is started for it."""
_SPARE_SECONDS = 30.0
"""So long a worker beyond the usual number is kept without work."""
_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0

_logger = structlog.get_logger(__name__)


class LocalExecutor:
    """Trains cohorts in worker processes of this machine; implements :class:`epochd_server.runs.ports.Executor`.

    A worker that dies costs its own cohort only and is replaced. Where all of them are held for long, cohorts that
    wait get spare ones, at most as many again, which share the processors with the others.

    Args:
        workers: How many processes; twice as many while long runs hold them.
        modules: Where registered modules come from, as for ``--modules``.
        nice: Added to the workers' niceness, so that Predict keeps its latency while they train.
        stop_seconds: How long a run that is asked to stop may take; then its worker is ended.
    """

    def __init__(
        self, workers: int, modules: Sequence[str] = (), *, nice: int = 10, stop_seconds: float = 10.0
    ) -> None:
        self._count = workers
        self._modules = tuple(modules)
        self._nice = nice
        self._stop_seconds = stop_seconds
        self._workers: set[WorkerProcess] = set()
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._keepers: set[asyncio.Task[None]] = set()
        self._assignments: dict[str, Assignment] = {}
        self._spares = 0
        self._retired: set[WorkerProcess] = set()
        self._closed = False

    @property
    def slots(self) -> int:
        """How many cohorts run at once."""
        return self._count

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return [worker.pid for worker in self._workers]

    async def start(self) -> None:
        """Returns when every worker is up and warm.

        Raises:
            WorkerStartError: A worker cannot start.
        """
        starts = [asyncio.create_task(self._add_worker()) for _ in range(self._count)]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self.close()
            raise

    async def run(self, work: CohortWork) -> AsyncGenerator[Sequence[WorkMessage], None]:
        """Trains a cohort; yields messages as they come, and ends when every run of it has ended.

        A fleet is the only run of its cohort; it is trained by as many workers as are free, part by part.

        Closing the iterator before its end ends the worker: there is no gentler way to be sure that it stops.

        Raises:
            WorkerDied: The worker's process ended before, by itself or because a run of it did not stop.
        """
        assignment = Assignment((run.run_id for run in work.runs), self._stop_seconds)
        lead = work.runs[0]
        if lead.spec.key_columns:
            serve, halt = partial(self._serve, assignment=assignment), partial(assignment.stop, lead.run_id)
            assignment.fleet = FleetTraining(lead, self._count, work.checkpoint_seconds, serve, halt)
            messages = assignment.fleet.messages()
        else:
            messages = self._train_cohort(work, assignment)
        self._assignments.update((run.run_id, assignment) for run in work.runs)
        try:
            async with aclosing(messages) as deliveries:
                async for delivery in deliveries:
                    _note_ends(delivery, assignment)
                    yield delivery
        finally:
            for run in work.runs:
                if self._assignments.get(run.run_id) is assignment:
                    del self._assignments[run.run_id]

    async def _train_cohort(
        self, work: CohortWork, assignment: Assignment
    ) -> AsyncGenerator[Sequence[WorkMessage], None]:
        unpacker = Unpacker(work.runs)
        async with aclosing(self._serve(pack(work), assignment)) as bundles:
            async for reports in bundles:
                if messages := unpacker.messages(reports):
                    yield messages

    async def _serve(self, work: Work, assignment: Assignment) -> AsyncGenerator[Sequence[Report], None]:
        """Has the next free worker train something.

        Raises:
            WorkerDied: Its process ended before.
        """
        worker = await self._idle_worker(may_start=isinstance(work, TrainCohort))
        finished = False
        assignment.give_to(worker)
        try:
            async with aclosing(worker.train(work)) as bundles:
                async for reports in bundles:
                    yield reports
            finished = True
        finally:
            assignment.take_from(worker)
            self._take_back(worker, finished=finished)

    def stop_runs(self, run_ids: Sequence[str]) -> None:
        """Asks that runs stop at their next epoch; unknown ids are ignored."""
        for run_id in run_ids:
            if run_id in self._assignments:
                self._assignments[run_id].stop(run_id)

    async def close(self) -> None:
        """Ends the workers, at once."""
        self._closed = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers))
        self._workers.clear()

    async def _idle_worker(self, *, may_start: bool) -> WorkerProcess:
        """The next free worker that lives; a spare one where none is free for long.

        Args:
            may_start: Whether to start a spare one. The parts of a fleet never wait for long runs only.
        """
        loop = asyncio.get_running_loop()
        impatience = loop.call_later(_PATIENCE_SECONDS, self._start_spare) if may_start else None
        try:
            while True:
                worker = await self._idle.get()
                if worker.alive:
                    return worker
        finally:
            if impatience is not None:
                impatience.cancel()

    def _start_spare(self) -> None:
        if self._spares < self._count and not self._closed:
            self._spares += 1
            self._tend(self._add_spare())

    async def _add_spare(self) -> None:
        try:
            await self._add_worker()
        except (WorkerStartError, OSError) as error:
            self._spares -= 1
            _logger.error("a spare worker process could not be started", problem=str(error))
        self._retire_later()

    def _take_back(self, worker: WorkerProcess, *, finished: bool) -> None:
        if not finished:
            worker.abandon()
            return
        self._idle.put_nowait(worker)
        self._retire_later()

    def _retire_later(self) -> None:
        if self._spares:
            asyncio.get_running_loop().call_later(_SPARE_SECONDS, self._retire)

    def _retire(self) -> None:
        """Ends a worker beyond the usual number, if one has nothing to do."""
        while self._spares and not self._idle.empty():
            worker = self._idle.get_nowait()
            if worker.alive:
                self._spares -= 1
                self._retired.add(worker)
                worker.abandon()
                return

    async def _add_worker(self) -> None:
        worker = await WorkerProcess.start(self._modules, self._nice)
        self._workers.add(worker)
        self._idle.put_nowait(worker)
        self._tend(self._keep(worker))

    def _tend(self, work: Coroutine[Any, Any, None]) -> None:
        """Has something done in the background, until this is closed."""
        keeper = asyncio.create_task(work)
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep(self, worker: WorkerProcess) -> None:
        """Replaces a worker when it has ended."""
        evidence = await worker.exited()
        self._workers.discard(worker)
        if worker in self._retired:
            self._retired.discard(worker)
            await worker.kill()
            return
        _logger.warning("a worker process ended; starting another", worker=worker.pid, evidence=evidence)
        await worker.kill()
        delay = _FIRST_DELAY_SECONDS
        while not self._closed:
            try:
                await self._add_worker()
                return
            except (WorkerStartError, OSError) as error:
                _logger.error("a worker process could not be replaced", problem=str(error))
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_SECONDS)


def _note_ends(delivery: Sequence[WorkMessage], assignment: Assignment) -> None:
    for message in delivery:
        if isinstance(message, RunTrained | RunFailed | RunStopped):
            assignment.note_end(message.run_id)
