"""Training a fleet: its parts go to whichever workers are free, and what they report is put together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from epochd_server.domain.checkpoints import MOST_COST, Checkpoint
from epochd_server.domain.runs import Failure, FleetProgress, MemberLog
from epochd_server.domain.work import (
    FleetAdvanced,
    RunBegan,
    RunCheckpointed,
    RunFailed,
    RunStopped,
    RunWork,
    WorkerDied,
    WorkMessage,
)
from epochd_server.executor.merging import FleetResult
from epochd_server.executor.packing import seconds_before
from epochd_server.executor.shares import FleetPart, fleet_parts
from epochd_server.executor.wire import (
    EndColumns,
    FleetBegan,
    FleetFailed,
    LogColumns,
    ProgressColumns,
    Report,
    TrainFleet,
)

PROGRESS_SECONDS = 0.5
_PROGRESS_SHARE = 0.02
"""So much of the server's time, at most, goes into finding out where a fleet is."""
_ATTEMPTS = 3

Serve = Callable[[TrainFleet], AsyncGenerator[Sequence[Report], None]]
"""Has a worker train a part; raises WorkerDied."""

_logger = structlog.get_logger(__name__)


class FleetTraining:
    """The training of one fleet.

    Each part is trained by one worker; after a part other runs may have that worker. A part whose worker died is
    trained again, to the same bits: its members that have ended are not, the others go on where they were last.

    Args:
        run: The fleet.
        workers: How many workers there are.
        checkpoint_seconds: How often to tell where its members are.
        serve: Has the next free one train a part.
        halt: Calls :meth:`stop` and has the workers stop the parts that they have.
    """

    def __init__(
        self,
        run: RunWork,
        workers: int,
        checkpoint_seconds: float,
        serve: Serve,
        halt: Callable[[], None],
    ) -> None:
        self._run = run
        self._serve = serve
        self._halt = halt
        self._workers = workers
        self._checkpoint_seconds = checkpoint_seconds
        self._places = {} if run.checkpoint is None else dict(run.checkpoint.members)
        self._waiting = deque(fleet_parts(run, workers))
        self._result = FleetResult(run)
        self._failure: Failure | None = None
        self._messages: list[WorkMessage] = []
        self._logs: list[MemberLog] = []
        self._news = asyncio.Event()
        self._began: float | None = None
        self._stopped = False

    def stop(self) -> None:
        """Begins no further part; those in training are stopped by the workers that have them."""
        self._stopped = True
        self._waiting.clear()

    async def messages(self) -> AsyncGenerator[Sequence[WorkMessage], None]:
        """Trains all parts; yields messages as they come, the last of which ends the run.

        Raises:
            WorkerDied: A part's worker died, and so did those that were to train it again.
        """
        pulling = [asyncio.create_task(self._pull()) for _ in range(min(self._workers, len(self._waiting)))]
        together = asyncio.gather(*pulling, return_exceptions=True)
        together.add_done_callback(lambda _: self._news.set())
        due = time.monotonic() + PROGRESS_SECONDS
        saving = time.monotonic() + self._checkpoint_seconds
        try:
            while not together.done():
                await self._wait_until(min(due, saving))
                if (began := time.monotonic()) >= due:
                    self._advance(self._progress())
                    due = began + max(PROGRESS_SECONDS, (time.monotonic() - began) / _PROGRESS_SHARE)
                if messages := self._take():
                    yield messages
                if (began := time.monotonic()) >= saving:
                    yield [self._checkpoint()]
                    now = time.monotonic()
                    saving = now + max(self._checkpoint_seconds, (now - began) / MOST_COST)
            for error in together.result():
                if error is not None and self._failure is None:
                    raise error
            yield [*self._take(), *self._end()]
        finally:
            for task in pulling:
                task.cancel()
            await asyncio.gather(*pulling, return_exceptions=True)

    async def _wait_until(self, due: float) -> None:
        """Waits for news, but not beyond a time."""
        try:
            async with asyncio.timeout(max(due - time.monotonic(), 0.0)):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    async def _pull(self) -> None:
        """Has part after part trained, for as long as there are any."""
        try:
            while self._waiting:
                await self._train(self._waiting.popleft())
                await asyncio.sleep(0)  # whoever waits for a worker comes first
        except BaseException:
            self._halt()
            raise

    async def _train(self, part: FleetPart) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._train_once(part)
                return
            except WorkerDied as death:
                if self._stopped:
                    raise
                if attempt == _ATTEMPTS:
                    raise WorkerDied(death.evidence, deaths=attempt) from None
                _logger.warning(
                    "a worker died with a part of a fleet; it is trained again",
                    run=self._run.run_id,
                    members=(part.first, part.last),
                    evidence=death.evidence,
                )

    async def _train_once(self, part: FleetPart) -> None:
        work = self._remaining(part)
        if len(work.ended) == part.last - part.first:
            return
        async with aclosing(self._serve(work)) as bundles:
            async for reports in bundles:
                for report in reports:
                    self._note(part, report)

    def _remaining(self, part: FleetPart) -> TrainFleet:
        """What of a part is not trained yet."""
        places = self._places.items()
        return replace(
            part.work,
            ended=self._result.ended(part),
            resume={
                member - part.first: place for member, place in places if part.first <= member < part.last
            },
            checkpoint_seconds=self._checkpoint_seconds,
        )

    def _note(self, part: FleetPart, report: Report) -> None:
        if isinstance(report, FleetBegan):
            self._begin(part, report)
        elif isinstance(report, EndColumns):
            self._result.take(part, report)
        elif isinstance(report, ProgressColumns):
            self._places |= {part.first + member: place for member, place in report.of_members()}
        elif isinstance(report, LogColumns):
            self._logs += self._result.logs(part, report)
            self._news.set()
        elif isinstance(report, FleetFailed):
            self._fail(report)

    def _begin(self, part: FleetPart, report: FleetBegan) -> None:
        if self._began is None:
            self._began = time.monotonic()
            self._messages.append(RunBegan(run_id=self._run.run_id, device=report.device))
            self._news.set()
        self._result.begin(part, report.rows)

    def _fail(self, report: FleetFailed) -> None:
        self._halt()
        self._failure = Failure(reason=report.reason, message=report.message, hint=report.hint)

    def _take(self) -> list[WorkMessage]:
        """What there is to tell."""
        if self._logs:
            self._advance(*self._logs)
            self._logs = []
        messages, self._messages = self._messages, []
        return messages

    def _advance(self, *news: FleetProgress | MemberLog) -> None:
        if self._began is not None:
            self._messages.append(FleetAdvanced(run_id=self._run.run_id, news=news))

    def _checkpoint(self) -> RunCheckpointed:
        self._places = {
            member: place for member, place in self._places.items() if self._result.is_open(member)
        }
        checkpoint = Checkpoint(
            members=self._places,
            ended=self._result.state(),
            training_seconds=seconds_before(self._run) + self._elapsed(),
        )
        return RunCheckpointed(run_id=self._run.run_id, checkpoint=checkpoint)

    def _progress(self) -> FleetProgress:
        return self._result.progress(self._elapsed(), self._run.seconds / self._workers)

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _end(self) -> list[WorkMessage]:
        if self._failure is not None:
            return [RunFailed(run_id=self._run.run_id, failure=self._failure)]
        ends = self._result.outcome(seconds_before(self._run) + self._elapsed())
        self._advance(self._progress())
        saved = [self._checkpoint()] if isinstance(ends, RunStopped) else []
        return [*self._take(), *saved, ends]
