"""Following a run's log: a replay from the store, then the live tail, without gap or repeat.

A watcher holds nothing but its place in the log. It is told that there is more and reads at its own pace, so a
slow one costs nobody anything: one page at most is on its way to each, and the more watchers there are, the smaller
are their pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.runs.log import PAGE_BYTES, PAGE_EVENTS, RunLog, ends
from epochd_server.runs.ports import RunStore

SMALLEST_PAGE_BYTES = 2**14


class WatchMemory:
    """Memory for the pages on their way to watchers, who share it evenly.

    Args:
        nbytes: How much there is, as long as no watcher's share is below the smallest page or a single event.
    """

    def __init__(self, nbytes: int = PAGE_BYTES) -> None:
        self._nbytes = nbytes
        self._watchers = 0

    @property
    def page_bytes(self) -> int:
        """Bytes of a page at present: about a mebibyte while there are few watchers."""
        share = self._nbytes // max(1, self._watchers)
        return min(max(SMALLEST_PAGE_BYTES, share), PAGE_BYTES)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Counts a watcher."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1


class StoreReader:
    """Reads a run's events from the store, page by page.

    Args:
        store: Where the events are.
        run_id: The run.
        memory: Says how large a page may be.
    """

    def __init__(self, store: RunStore, run_id: str, memory: WatchMemory | None = None) -> None:
        self._store = store
        self._run_id = run_id
        self._memory = memory or WatchMemory()

    @property
    def page_bytes(self) -> int:
        """Bytes of a page at present."""
        return self._memory.page_bytes

    async def after(self, sequence: int) -> EventPage:
        """The next events after a sequence number; empty where there are none."""
        return await self._store.events(self._run_id, sequence, PAGE_EVENTS, self.page_bytes)


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
        page = log.after(after_sequence, reader.page_bytes)
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
        try:
            await log.changed(after_sequence)
        except EpochdError as error:
            raise _at(error, after_sequence) from None
        if log.newest <= after_sequence:
            return


def _at(error: EpochdError, after_sequence: int) -> EpochdError:
    """The end of all watches of a log as one of them is told it: with the place from which to go on."""
    return EpochdError(error.reason, error.message, error.metadata | {"after_sequence": str(after_sequence)})
