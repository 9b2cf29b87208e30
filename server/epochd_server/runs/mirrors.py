"""Logs of runs that other servers train, as far as they are watched here.

What another server writes is read from the store once and shown to all who watch it here, as if it had been written
here. A mirror is there for as long as somebody looks into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import structlog

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.records import StoredRun
from epochd_server.runs.durable import durably
from epochd_server.runs.log import RunLog, TailBudget
from epochd_server.runs.watching import StoreReader

_logger = structlog.get_logger(__name__)


class _Mirror:
    """One run's log, and the task that goes on reading it."""

    def __init__(self, log: RunLog, reader: StoreReader) -> None:
        self.log = log
        self.watchers = 0
        self._reader = reader
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read_on())

    def wake(self) -> None:
        """There may be more in the store."""
        self._news.set()

    def close(self, error: EpochdError | None = None) -> None:
        """Reads no further."""
        self._task.cancel()
        self.log.close(error)

    async def _read_on(self) -> None:
        while not self.log.closed:
            self._news.clear()
            try:
                page = await durably(partial(self._reader.after, self.log.newest))
            except Exception:
                _logger.exception("the log of another server's run could not be read")
                self.log.close(EpochdError(Reason.INTERNAL))
                return
            if page:
                self.log.publish(page)
            else:
                await self._news.wait()


class Mirrors:
    """The logs of other servers' runs.

    Args:
        reader: Reads the log of a run.
        tails: Memory for the newest of their events.
    """

    def __init__(self, reader: Callable[[StoredRun], StoreReader], tails: TailBudget) -> None:
        self._reader = reader
        self._tails = tails
        self._mirrors: dict[str, _Mirror] = {}

    @property
    def watched(self) -> list[str]:
        """The runs that are watched now."""
        return list(self._mirrors)

    @contextmanager
    def log(self, stored: StoredRun) -> Iterator[RunLog]:
        """The log of a run, kept up to date within the block.

        It is closed without an error, and before its last event, when the run becomes this server's.
        """
        run_id = stored.run.run_id
        mirror = self._mirrors.get(run_id)
        if mirror is None:
            log = RunLog(self._tails, stored.run.latest_sequence)
            mirror = self._mirrors[run_id] = _Mirror(log, self._reader(stored))
        mirror.watchers += 1
        try:
            yield mirror.log
        finally:
            mirror.watchers -= 1
            if not mirror.watchers:
                self._close(run_id, mirror)

    def wake(self, run_ids: Iterable[str]) -> None:
        """Events were added to the logs of these runs."""
        for run_id in run_ids:
            if mirror := self._mirrors.get(run_id):
                mirror.wake()

    def compare(self, asked: Iterable[str], newest: Mapping[str, int]) -> None:
        """Looks whether something was missed.

        Args:
            asked: Runs that were looked up.
            newest: The sequences of their newest events. A run that is missing was deleted.
        """
        for run_id in asked:
            mirror = self._mirrors.get(run_id)
            if mirror is None:
                continue
            if run_id not in newest:
                self._close(run_id, mirror, EpochdError(Reason.RUN_NOT_FOUND))
            elif newest[run_id] > mirror.log.newest:
                mirror.wake()

    def end(self, run_id: str) -> None:
        """A run is this server's from now on; those who watch it find that out."""
        if mirror := self._mirrors.get(run_id):
            self._close(run_id, mirror)

    def close(self) -> None:
        """Tells all who watch that the server stops."""
        for run_id, mirror in list(self._mirrors.items()):
            self._close(run_id, mirror, EpochdError(Reason.SERVER_STOPPING))

    def _close(self, run_id: str, mirror: _Mirror, error: EpochdError | None = None) -> None:
        if self._mirrors.get(run_id) is mirror:
            del self._mirrors[run_id]
        mirror.close(error)
