"""When which waiting runs become a cohort.

    submit ─▶ FairQueue ─▶ (a slot is free, and the gather window is over) ─▶ train(cohort) ─▶ slot free again

A lone run on an idle server goes at once. While a worker is busy or several runs wait, the oldest waits for up to
``gather_seconds``, so that those who come at the same time travel together.

A run that takes minutes must not keep those waiting that take milliseconds: once every slot is held by long cohorts,
brief ones have as many slots of their own, which the executor finds workers for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import structlog

from epochd_server.runs.fair_queue import CohortLimits, FairQueue, Ticket
from epochd_server.runs.settings import RunSettings

_WORTH_SPLITTING_SECONDS = 0.02

_logger = structlog.get_logger(__name__)


class Scheduler:
    """Hands waiting runs to free slots, as cohorts.

    Args:
        slots: How many cohorts are trained at once.
        train: Trains the runs of some tickets; returns when all have ended or are submitted anew.
        settings: Windows and limits.
    """

    def __init__(
        self,
        slots: int,
        train: Callable[[Sequence[Ticket]], Awaitable[None]],
        settings: RunSettings,
    ) -> None:
        self._slots = slots
        self._train = train
        self._settings = settings
        self._queue = FairQueue(settings.max_cohort_seconds)
        self._running: dict[asyncio.Task[None], bool] = {}
        """Cohorts in training → whether they are long."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Runs that wait for a slot."""
        return len(self._queue)

    def waiting_of(self, client: str) -> int:
        """Runs of a client that wait for a slot."""
        return self._queue.count_of(client)

    @property
    def seconds_waiting(self) -> float:
        """For how long the slots have work, as far as it is known what waits."""
        return self._queue.seconds / self._slots

    @property
    def idle_slots(self) -> int:
        """Slots without a cohort while nothing waits."""
        return 0 if self._queue else max(0, self._slots - len(self._running))

    def surplus(self, slots: int) -> list[Ticket]:
        """The tickets that came last and would go to so many further slots; none while there are free ones here."""
        if len(self._running) < self._slots:
            return []
        share = self._queue.seconds * slots / (slots + self._slots)
        surplus: list[Ticket] = []
        for ticket in self._queue.youngest():
            share -= ticket.seconds
            if share < 0 and len(surplus) >= slots:
                break
            surplus.append(ticket)
        return surplus

    def now(self) -> float:
        """The clock of ``Ticket.since``, in seconds."""
        return self._loop.time()

    def is_waiting(self, run_id: str) -> bool:
        """Whether this run waits for a slot."""
        return run_id in self._queue

    def submit(self, ticket: Ticket) -> None:
        """Lets a run wait for its turn."""
        self._queue.push(ticket)
        self._dispatch()

    def withdraw(self, run_id: str) -> bool:
        """Takes a run out of the queue; False where it does not wait (any more)."""
        return self._queue.remove(run_id) is not None

    def stop(self) -> None:
        """Starts no further cohorts."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    async def finish(self, seconds: float) -> bool:
        """Waits for running cohorts, at most so long; whether all have ended."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        return not self._running

    async def close(self) -> None:
        """Abandons running cohorts."""
        self.stop()
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        while not self._stopped and (leader := self._next_leader()) is not None:
            if (seconds := self._seconds_to_gather()) > 0:
                self._call_later(seconds)
                return
            tickets = self._queue.take(self._limits(leader), brief=self._is_full_of_long)
            self._launch(tickets, is_long=not self._queue.is_brief(leader))

    def _next_leader(self) -> Ticket | None:
        """Who leads the next cohort; None where nobody waits or no slot is free."""
        return self._queue.leader(brief=self._is_full_of_long) if self._free_slots > 0 else None

    @property
    def _is_full_of_long(self) -> bool:
        return sum(self._running.values()) >= self._slots

    @property
    def _free_slots(self) -> int:
        slots = 2 * self._slots if self._is_full_of_long else self._slots
        return slots - len(self._running)

    def _seconds_to_gather(self) -> float:
        waiting = len(self._queue)
        lone = waiting == 1 and not self._running
        if lone or not self._settings.cohorts or waiting >= self._settings.max_members * self._slots:
            return 0.0
        return self._queue.oldest.since + self._settings.gather_seconds - self.now()

    def _limits(self, leader: Ticket) -> CohortLimits:
        settings = self._settings
        members = settings.max_members if settings.cohorts else 1
        company = self._queue.company(leader)
        if company * leader.seconds > _WORTH_SPLITTING_SECONDS:
            members = min(members, math.ceil(company / self._free_slots))
        return CohortLimits(
            members=members, nbytes=settings.max_cohort_bytes, seconds=settings.max_cohort_seconds
        )

    def _launch(self, tickets: Sequence[Ticket], *, is_long: bool) -> None:
        task = self._loop.create_task(self._guard(tickets))
        self._running[task] = is_long
        overdue = self._loop.call_later(self._settings.max_cohort_seconds, self._note_long, task)
        task.add_done_callback(lambda _: overdue.cancel())
        task.add_done_callback(self._free)

    async def _guard(self, tickets: Sequence[Ticket]) -> None:
        try:
            await self._train(tickets)
        except Exception:
            _logger.exception("a cohort was abandoned", runs=[ticket.run_id for ticket in tickets])

    def _note_long(self, task: asyncio.Task[None]) -> None:
        """A cohort takes longer than was expected; no more than there are slots count as such."""
        if not self._is_full_of_long:
            self._running[task] = True
            self._dispatch()

    def _free(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._dispatch()

    def _call_later(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._dispatch()
