"""A worker's reports on their way out: bundled, and sent by a thread of its own so that training does not wait."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Callable

from epochd_server.executor import frames
from epochd_server.executor.wire import Report

_MAX_PENDING_BYTES = 64 * 2**20
_FOREVER = float("inf")


class Outbox:
    """Collects reports and sends them in bundles.

    Args:
        connection: The socket to the server.
        lost: Called on the sending thread once nothing can be sent any more, as when the server is gone.
    """

    def __init__(self, connection: socket.socket, lost: Callable[[], None]) -> None:
        self._connection = connection
        self._lost = lost
        self._state = threading.Condition()
        self._pending: list[Report] = []
        self._pending_bytes = 0
        self._due = _FOREVER
        threading.Thread(target=self._send_bundles, name="outbox", daemon=True).start()

    def put(self, report: Report, within_seconds: float = 0.0, nbytes: int = 0) -> None:
        """Sends a report, after those before it.

        Blocks while too many bytes wait: a server that cannot keep up slows its workers down rather than
        letting them fill the memory.

        Args:
            report: What to send.
            within_seconds: How long it may wait for company.
            nbytes: About how much memory it takes.
        """
        with self._state:
            self._state.wait_for(lambda: self._pending_bytes <= _MAX_PENDING_BYTES)
            self._pending.append(report)
            self._pending_bytes += nbytes
            due = time.monotonic() + within_seconds
            if due < self._due:
                self._due = due
                self._state.notify_all()

    def _send_bundles(self) -> None:
        try:
            while True:
                frames.send(self._connection, self._next_bundle())
        except OSError:  # the server is gone
            pass
        except Exception:  # a report that cannot be sent would leave its run waiting for ever
            traceback.print_exc()
        self._lost()

    def _next_bundle(self) -> tuple[Report, ...]:
        with self._state:
            while (wait := self._due - time.monotonic()) > 0:
                self._state.wait(None if wait == _FOREVER else wait)
            bundle = tuple(self._pending)
            self._pending, self._pending_bytes, self._due = [], 0, _FOREVER
            self._state.notify_all()
            return bundle
