"""Whether another run may wait: how many do, in all and of one client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.runs.scheduler import Scheduler
from epochd_server.runs.settings import RunSettings

_SOONEST_SECONDS = 1.0
_LATEST_SECONDS = 30.0
_FRACTION = 10
"""A client that is refused should come back when this part of the queue has gone."""


class QueueAdmission:
    """Counts the runs that wait, and those that are on their way to the disk and will.

    Args:
        scheduler: Knows who waits.
        settings: How many may.
    """

    def __init__(self, scheduler: Scheduler, settings: RunSettings) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._accepting: Counter[str] = Counter()

    @contextmanager
    def accepting(self, client: str) -> Iterator[None]:
        """Counts a run of a client while it is written down."""
        self._accepting[client] += 1
        try:
            yield
        finally:
            self._accepting[client] -= 1
            if not self._accepting[client]:
                del self._accepting[client]

    def refusal(self, client: str) -> EpochdError | None:
        """Why a client's next run may not wait, and when it may try again; None where it may."""
        scheduler, settings = self._scheduler, self._settings
        if scheduler.waiting + self._accepting.total() >= settings.max_queued:
            reason = Reason.QUEUE_FULL
        elif scheduler.waiting_of(client) + self._accepting[client] >= settings.max_queued_per_client:
            reason = Reason.CLIENT_QUEUE_FULL
        else:
            return None
        seconds = min(max(_SOONEST_SECONDS, scheduler.seconds_waiting / _FRACTION), _LATEST_SECONDS)
        return EpochdError(reason, retry_after_seconds=seconds)
