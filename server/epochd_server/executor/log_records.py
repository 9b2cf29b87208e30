"""Log records of a worker on their way to the server's log: one place and one form for all processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from epochd_server.executor.forwarding import LOG_SECONDS
from epochd_server.executor.outbox import Outbox
from epochd_server.executor.wire import Problem


class RecordForwarder(logging.Handler):
    """Sends records of the standard library's logging to the server, with the runs in training.

    Args:
        outbox: Where they go.
    """

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.WARNING)
        self.run_ids: Sequence[str] = ()
        self._outbox = outbox
        self._text = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record."""
        detail = self._text.formatException(record.exc_info) if record.exc_info else ""
        problem = Problem(event=record.getMessage(), run_ids=tuple(self.run_ids), detail=detail)
        self._outbox.put(problem, LOG_SECONDS, len(detail))
