"""The time that events bear: that of the wall, but never jumping and never going back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

RATE: Final = 0.1
"""Seconds of an error that are made good in a second. Durations between events are right within this part of them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SteadyClock:
    """Follows the wall clock at a bounded rate.

    A wall clock that is set to another time, by an hour or more, would make runs last an hour longer or end before
    they began. This clock runs on evenly and approaches the new time. It belongs to one event loop.

    Args:
        wall: Seconds since 1970 as the machine has them now.
        steady: Seconds of a clock that nobody sets.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._read = steady()
        self._offset = wall() - self._read

    def now(self) -> datetime:
        """The time, never before one that was given earlier."""
        read = self._steady()
        most = RATE * (read - self._read)
        error = self._wall() - read - self._offset
        self._read = read
        self._offset += min(max(error, -most), most)
        return _EPOCH + timedelta(seconds=read + self._offset)
