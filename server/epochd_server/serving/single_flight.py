"""Many who want the same thing at once wait for one piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs at most one coroutine a key; a waiter that is cancelled does not disturb the others."""

    def __init__(self) -> None:
        self._flying: dict[K, asyncio.Task[V]] = {}

    async def do(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of the work that runs for ``key``, or of ``work``."""
        task = self._flying.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work())
            self._flying[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def forget(self, key: K) -> None:
        """Has the next one who wants ``key`` start anew."""
        self._flying.pop(key, None)

    def is_current(self, key: K) -> bool:
        """Within the work for ``key``: whether nobody has called :meth:`forget` since it began."""
        return self._flying.get(key) is asyncio.current_task()

    def _landed(self, key: K, task: asyncio.Task[V]) -> None:
        if self._flying.get(key) is task:
            del self._flying[key]
        if not task.cancelled():
            task.exception()  # seen, even where every waiter has gone
