"""Reads and writes that outlast a storage that is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from epochd_server.domain.errors import EpochdError, Reason

T = TypeVar("T")

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 1.0

_logger = structlog.get_logger(__name__)


async def _never() -> None:
    """What a read leaves behind: nothing to be found."""


async def durably(
    operation: Callable[[], Awaitable[T]], landed: Callable[[], Awaitable[T | None]] = _never
) -> T:
    """Reads or writes, and tries again for as long as the storage does not answer.

    A write whose answer was lost may have been made all the same, so each further attempt looks first.

    Args:
        operation: The read or write.
        landed: What a write would have returned, if what it writes is found in the storage; else None.

    Raises:
        EpochdError: Any but STORAGE_UNAVAILABLE.
    """
    try:
        return await operation()
    except EpochdError as error:
        _pass_on_unless_away(error)
    delay = _FIRST_DELAY_SECONDS
    while True:
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY_SECONDS)
        try:
            found = await landed()
            return found if found is not None else await operation()
        except EpochdError as error:
            _pass_on_unless_away(error)


def _pass_on_unless_away(error: EpochdError) -> None:
    if error.reason is not Reason.STORAGE_UNAVAILABLE:
        raise error
    _logger.warning("storage does not answer; will try again", problem=error.message)
