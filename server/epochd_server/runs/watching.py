"""Following a run's log: a replay from the store, then the live tail, without gap or repeat.

A watcher holds nothing but its place in the log. It is told that there is more and reads at its own pace, so a
slow one costs nobody anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.runs.log import PAGE_BYTES, PAGE_EVENTS, RunLog, ends
from epochd_server.runs.ports import RunStore

_FIRST_PAGE_WITH_PARAMETERS = 8


class StoreReader:
    """Reads a run's events from the store, in pages of about a mebibyte.

    Args:
        store: Where the events are.
        run_id: The run.
        parameters: Whether its epoch logs carry parameters, which may be large.
    """

    def __init__(self, store: RunStore, run_id: str, *, parameters: bool) -> None:
        self._store = store
        self._run_id = run_id
        self._limit = _FIRST_PAGE_WITH_PARAMETERS if parameters else PAGE_EVENTS

    async def after(self, sequence: int) -> EventPage:
        """The next events after a sequence number; empty where there are none."""
        page = await self._store.events(self._run_id, sequence, self._limit)
        if page:
            mean = sum(page.sizes()) / len(page)
            self._limit = max(1, min(PAGE_EVENTS, int(PAGE_BYTES / mean)))
        return page


async def replay(reader: StoreReader, after_sequence: int) -> AsyncIterator[EventPage]:
    """The events of a run that has ended, after a sequence number, in pages."""
    while page := await reader.after(after_sequence):
        yield page
        after_sequence = page.last


async def follow(log: RunLog, reader: StoreReader, after_sequence: int) -> AsyncIterator[EventPage]:
    """The events of a live run after a sequence number, in pages, until its last one.

    Raises:
        EpochdError: The log was closed before the run ended, as the server is stopping, or the run was deleted.
    """
    while True:
        page = log.after(after_sequence)
        if page is None:
            page = await reader.after(after_sequence)
            if not page:
                raise EpochdError(Reason.RUN_NOT_FOUND)  # it ended, and was deleted since
        if page:
            yield page
            after_sequence = page.last
            if ends(page[-1]):
                return
            continue
        await log.changed(after_sequence)
        if log.newest <= after_sequence:
            return
