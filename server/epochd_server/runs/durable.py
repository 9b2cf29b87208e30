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


async def durably(operation: Callable[[], Awaitable[T]]) -> T:
    """Reads or writes, and tries again for as long as the storage does not answer.

    A write whose answer was lost may have been made all the same; the store lets it be repeated.

    Raises:
        EpochdError: Any but STORAGE_UNAVAILABLE.
    """
    delay = _FIRST_DELAY_SECONDS
    while True:
        try:
            return await operation()
        except EpochdError as error:
            if error.reason is not Reason.STORAGE_UNAVAILABLE:
                raise
            _logger.warning("storage does not answer; will try again", problem=error.message)
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY_SECONDS)
