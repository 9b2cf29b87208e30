"""Where a handler computes: small things at once, large ones in a thread, so that the loop stays responsive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

SMALL: Final = 65_536
"""Elements up to which a thread costs more than it saves; they take some hundred microseconds."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Computer:
    """A few threads for work that holds the loop too long.

    Args:
        threads: How many computations run at once; PyTorch releases the interpreter's lock in each.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="epochd-compute")

    async def run(self, elements: int, function: Callable[[], _Out]) -> _Out:
        """Calls ``function``, which works on so many elements."""
        if elements <= SMALL:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def map_ahead(
        self, items: AsyncIterable[_In], function: Callable[[_In], _Out]
    ) -> AsyncGenerator[_Out, None]:
        """Results in the order of ``items``; an item is computed while the next one is awaited, never more ahead."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[_Out] | None = None
        async for item in items:
            computing = loop.run_in_executor(self._pool, function, item)
            if waiting is not None:
                yield await waiting
            waiting = computing
        if waiting is not None:
            yield await waiting

    def close(self) -> None:
        """Ends the threads when they have finished what they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)
