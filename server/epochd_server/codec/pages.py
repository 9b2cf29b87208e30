"""Pages of a run's log: neighbouring events as they are stored and sent, decoded only where somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import overload

from epochd_server.codec.epochs import encode_epochs
from epochd_server.codec.events import decode, encode, frame
from epochd_server.domain.epoch_columns import EpochColumns
from epochd_server.domain.runs import Event, EventBody

_OVERHEAD_BYTES = 100
"""What an event takes in memory besides its message, about."""

Body = EventBody | EpochColumns
"""What happened: one event, or as many as there are epochs."""

Entry = tuple[datetime, Body]
"""When something happened, and what."""


class EventPage(Sequence[Event]):
    """Events that follow each other.

    Args:
        first: Sequence of the first one.
        messages: Their messages.
        events: The events themselves as far as they are known already; empty where none is.
    """

    __slots__ = ("_events", "first", "messages")

    def __init__(self, first: int, messages: Sequence[bytes], events: Sequence[Event | None] = ()) -> None:
        self.first = first
        self.messages = messages
        self._events = list(events) or [None] * len(messages)

    @classmethod
    def write(cls, first: int, entries: Iterable[Entry]) -> EventPage:
        """The page of what happened, in order.

        Args:
            first: Sequence of the first event.
            entries: What happened.
        """
        messages: list[bytes] = []
        events: list[Event | None] = []
        for time, body in entries:
            sequence = first + len(messages)
            if isinstance(body, EpochColumns):
                messages += encode_epochs(sequence, time, body)
                events += [None] * len(body)
                events[-1] = Event(sequence + len(body) - 1, time, body[-1])
            else:
                event = Event(sequence, time, body)
                messages.append(encode(event))
                events.append(event)
        return cls(first, messages, events)

    @classmethod
    def of(cls, events: Sequence[Event]) -> EventPage:
        """The page of some events, at least one."""
        if isinstance(events, EventPage):
            return events
        return cls(events[0].sequence, [encode(event) for event in events], events)

    @classmethod
    def ending(cls, page: EventPage | None, end: Event | None) -> EventPage | None:
        """A page with the event that follows it; either may be missing."""
        if end is None:
            return page
        last = cls.of([end])
        return last if page is None else page + last

    @property
    def last(self) -> int:
        """Sequence of the last event."""
        return self.first + len(self.messages) - 1

    @property
    def data(self) -> bytes:
        """The bytes of any message whose ``repeated Event events = 1`` are these and which holds nothing else."""
        return frame(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> EventPage: ...

    def __getitem__(self, index: int | slice) -> Event | EventPage:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return EventPage(self.first + start, self.messages[start:stop], self._events[start:stop])
        event = self._events[index]
        if event is None:
            event = self._events[index] = decode(self.messages[index])
        return event

    def __add__(self, other: EventPage) -> EventPage:
        """This page and the one that follows it."""
        return EventPage(self.first, [*self.messages, *other.messages], [*self._events, *other._events])

    def sizes(self) -> list[int]:
        """About how much memory each event takes."""
        return [len(message) + _OVERHEAD_BYTES for message in self.messages]
