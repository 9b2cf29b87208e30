"""A live run's log: written to the store first, then shown to watchers from memory.

Only one task writes a log at a time: its sequence numbers have no gaps and no repeats because nobody else counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from epochd_server.domain.errors import EpochdError
from epochd_server.domain.models import TrainedModel
from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    Event,
    EventBody,
    Failure,
    MemberLog,
    RunState,
    Started,
    Succeeded,
)
from epochd_server.runs.durable import durably
from epochd_server.runs.ports import RunStore

_EVENT_BYTES = 400
"""About what an event takes besides its parameters."""

PAGE_EVENTS = 256
PAGE_BYTES = 2**20


def ends(event: Event) -> bool:
    """Whether this is a run's last event."""
    return isinstance(event.body, Succeeded | Failure | Cancelled)


def event_bytes(event: Event) -> int:
    """About how large an event's message is; in memory it takes up to twice as much."""
    log = event.body.log if isinstance(event.body, MemberLog) else event.body
    if isinstance(log, EpochLog) and log.parameters:
        return _EVENT_BYTES + sum(array.nbytes for array in log.parameters.values())
    return _EVENT_BYTES


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
        run_id: The run.
        store: Where events are kept.
        budget: Memory for tails.
        newest: Sequence of the newest event in the store; 0 for a run that is being accepted.
    """

    def __init__(self, run_id: str, store: RunStore, budget: TailBudget, newest: int = 0) -> None:
        self._run_id = run_id
        self._store = store
        self._budget = budget
        self._newest = newest
        self._tail: deque[tuple[Event, int]] = deque()  # with the bytes of each
        self._changed = asyncio.Event()
        self._kept = 0
        self._closed = False
        self._error: EpochdError | None = None

    @property
    def newest(self) -> int:
        """Sequence of the newest event that watchers see."""
        return self._newest

    @property
    def closed(self) -> bool:
        """Whether nothing will be added any more."""
        return self._closed

    def next_events(self, bodies: Sequence[EventBody]) -> list[Event]:
        """Events that would follow the newest one, happening now."""
        now = datetime.now(UTC)
        return [Event(number, now, body) for number, body in enumerate(bodies, self._newest + 1)]

    async def append(self, bodies: Sequence[EventBody], state: RunState | None = None) -> None:
        """Stores events and the state they bring, then shows them."""
        events = self.next_events(bodies)
        await durably(lambda: self._store.append(self._run_id, events, state=state))
        self.publish(events)

    async def succeed(
        self, bodies: Sequence[EventBody], trained: TrainedModel, training_seconds: float
    ) -> None:
        """Stores events, the model version and the run's success all at once, then shows them."""
        before, now = self.next_events(bodies), datetime.now(UTC)
        if before and isinstance(
            before[0].body, Started
        ):  # it is news only now, but happened when training began
            before[0] = replace(before[0], time=now - timedelta(seconds=training_seconds))
        sequence = self._newest + len(before) + 1
        event = await durably(
            lambda: self._store.succeed(self._run_id, sequence, now, trained, training_seconds, before)
        )
        self.publish([*before, event])

    def publish(self, events: Sequence[Event]) -> None:
        """Shows events that are in the store."""
        sized = [(event, event_bytes(event)) for event in events]
        self._tail.extend(sized)
        self._account(sum(nbytes for _, nbytes in sized))
        self._newest = events[-1].sequence
        self._trim()
        self._wake()
        if ends(events[-1]):
            self.close()

    def close(self, error: EpochdError | None = None) -> None:
        """Ends the log: watchers get what is left of it, then ``error`` if there is one."""
        if self._closed:
            return
        self._closed, self._error = True, error
        self._account(-self._kept)
        self._wake()

    def after(self, sequence: int) -> list[Event] | None:
        """A page of events after a sequence number; None where memory no longer holds the first of them."""
        if sequence >= self._newest:
            return []
        start = sequence + 1 - self._tail[0][0].sequence if self._tail else -1
        if start < 0:
            return None
        page: list[Event] = []
        room = PAGE_BYTES
        for event, nbytes in islice(self._tail, start, start + PAGE_EVENTS):
            room -= nbytes
            if page and room < 0:
                break
            page.append(event)
        return page

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
        budget = self._budget
        while len(self._tail) > 1 and (len(self._tail) > budget.events or budget.used > budget.nbytes):
            self._account(-self._tail.popleft()[1])

    def _account(self, nbytes: int) -> None:
        self._kept += nbytes
        self._budget.used += nbytes
