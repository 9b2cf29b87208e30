"""A live run's log as its watchers see it: what is in the store already, and the newest of it in memory.

Only one task writes a log at a time: its sequence numbers have no gaps and no repeats because nobody else counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from epochd_server.codec.pages import Entry, EventPage
from epochd_server.domain.errors import EpochdError
from epochd_server.domain.runs import Cancelled, Event, Failure, Succeeded

PAGE_EVENTS = 256
PAGE_BYTES = 2**20


def ends(event: Event) -> bool:
    """Whether this is a run's last event."""
    return isinstance(event.body, Succeeded | Failure | Cancelled)


@dataclass(slots=True)
class TailBudget:
    """Memory that the tails of all live logs share.

    Attributes:
        events: Events kept of one log.
        nbytes: Bytes kept of all logs; beyond it every log keeps its newest event only.
        used: Bytes kept now.
    """

    events: int
    nbytes: int
    used: int = 0


class RunLog:
    """The log of one live run.

    Args:
        budget: Memory for tails.
        newest: Sequence of the newest event in the store; 0 for a run that is being accepted.
    """

    def __init__(self, budget: TailBudget, newest: int = 0) -> None:
        self._budget = budget
        self._newest = newest
        self._tail: deque[EventPage] = deque()
        self._kept_events = 0
        self._kept_bytes = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._ended = False
        self._error: EpochdError | None = None

    @property
    def newest(self) -> int:
        """Sequence of the newest event that watchers see."""
        return self._newest

    @property
    def closed(self) -> bool:
        """Whether nothing will be added any more."""
        return self._closed

    @property
    def ended(self) -> bool:
        """Whether the run's last event was shown. A log that is closed before goes on elsewhere, or not at all."""
        return self._ended

    def next_page(self, entries: Iterable[Entry]) -> EventPage:
        """The page that would follow the newest event."""
        return EventPage.write(self._newest + 1, entries)

    def publish(self, page: EventPage) -> None:
        """Shows events that are in the store."""
        self._tail.append(page)
        self._account(len(page), sum(page.sizes()))
        self._newest = page.last
        self._trim()
        self._wake()
        if ends(page[-1]):
            self._ended = True
            self.close()

    def close(self, error: EpochdError | None = None) -> None:
        """Ends the log: watchers get what is left of it, then ``error`` if there is one."""
        if self._closed:
            return
        self._closed, self._error = True, error
        self._account(0, -self._kept_bytes)
        self._wake()

    def after(self, sequence: int, nbytes: int = PAGE_BYTES) -> EventPage | None:
        """A page of events after a sequence number; None where memory no longer holds the first of them.

        It is empty where there are none.

        Args:
            sequence: The number.
            nbytes: How large the page may be, unless one event is larger.
        """
        if sequence >= self._newest:
            return EventPage(sequence + 1, [])
        if not self._tail or sequence + 1 < self._tail[0].first:
            return None
        pages: list[EventPage] = []
        for page in reversed(self._tail):  # most watchers lack the newest only
            if page.last <= sequence:
                break
            pages.append(page)
        joined = pages.pop()
        joined = joined[sequence + 1 - joined.first :]
        while pages and len(joined) < PAGE_EVENTS:
            joined += pages.pop()
        return joined[: _fitting(joined, nbytes)]

    async def changed(self, sequence: int) -> None:
        """Returns once there are events after ``sequence``, or the log is closed.

        Raises:
            EpochdError: The log was closed with an error and holds nothing further.
        """
        while self._newest <= sequence and not self._closed:
            await self._changed.wait()
        if self._newest <= sequence and self._error is not None:
            raise self._error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _trim(self) -> None:
        """Lets the oldest events go, as far as they are too many or too large, but never the newest."""
        budget = self._budget
        while self._kept_events > 1 and (self._kept_events > budget.events or budget.used > budget.nbytes):
            self._drop(self._tail.popleft())

    def _drop(self, page: EventPage) -> None:
        """Lets go of the oldest page, or of so many of its events that the rest can stay."""
        budget, count = self._budget, 0
        for size in page.sizes():
            over = self._kept_events > budget.events or budget.used > budget.nbytes
            if self._kept_events == 1 or not over:
                break
            count += 1
            self._account(-1, -size)
        if count < len(page):
            self._tail.appendleft(page[count:])

    def _account(self, events: int, nbytes: int) -> None:
        self._kept_events += events
        self._kept_bytes += nbytes
        self._budget.used += nbytes


def _fitting(page: EventPage, nbytes: int) -> int:
    """How many of a page's events go into one message: at least one."""
    if len(page) <= PAGE_EVENTS and sum(page.sizes()) <= nbytes:
        return len(page)
    room = nbytes
    for count, size in enumerate(page.sizes()[:PAGE_EVENTS]):
        room -= size
        if count and room < 0:
            return count
    return min(len(page), PAGE_EVENTS)
