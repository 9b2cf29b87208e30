"""The one thread that writes: operations that wait at the same time share a transaction, and thus an fsync.

Why not a thread hop a statement (aiosqlite) or a connection a request: docs/decisions/0001-group-commit.md.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage.failures import is_collision, is_unavailable, translated

T = TypeVar("T")
Item = TypeVar("Item")

Operation = Callable[[Connection], T]
"""What is done in a transaction. May be called again after its changes were undone, so it changes nothing else."""

Together = Callable[[Connection, Sequence[Item]], Sequence[T]]
"""An operation on many items at once; gives a result for each. If it raises, it is called with each item alone."""

_MOST_IN_ONE_COMMIT = 1024
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Items for an operation, and who waits for them."""

    operation: Together[Any, Any]
    items: Sequence[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands for the result of an item that could not be written."""

    error: Exception


_Step = tuple[Together[Any, Any], Any]
"""An operation and one of its items."""


class GroupWriter:
    """Runs operations in the order they are submitted; a future resolves after its commit is on disk.

    Args:
        engine: Has at least one connection for this writer alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="storage-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Together[Item, T], items: Sequence[Item]) -> asyncio.Future[list[T | Failed]]:
        """Queues items of an operation; must be called in a running loop.

        Items of the same operation that wait one behind the other are written at once, whoever submitted them.
        A future that is cancelled before its transaction began is never run.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[T | Failed]] = loop.create_future()
        with self._wake:
            if self._closed:
                raise EpochdError(Reason.SERVER_STOPPING)
            self._waiting.append(_Waiting(operation, items, future, loop))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Commits what waits, then ends the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._next_batch():
            live = [waiting for waiting in batch if not waiting.future.cancelled()]
            if live:
                steps = [(waiting.operation, item) for waiting in live for item in waiting.items]
                results = self._commit(steps)
                if all(map(_is_away, results)):
                    self._refuse_waiting()  # before anybody hears of it, and may rightly try again
                parts = iter(results)
                _settle(live, [list(itertools.islice(parts, len(waiting.items))) for waiting in live])

    def _refuse_waiting(self) -> None:
        """Fails what came while the database did not answer: it would wait as long again, one batch after the other."""
        with self._wake:
            batch, self._waiting = list(self._waiting), deque()
        away = Failed(EpochdError(Reason.STORAGE_UNAVAILABLE))
        _settle(batch, [[away] * len(waiting.items) for waiting in batch])

    def _next_batch(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            batch: list[_Waiting] = []
            room = _MOST_IN_ONE_COMMIT
            while self._waiting and room > 0:
                batch.append(self._waiting.popleft())
                room -= len(batch[-1].items)
            return batch

    def _commit(self, steps: Sequence[_Step]) -> list[Any]:
        """Everything in one transaction; if anything fails, again with a savepoint around each step."""
        attempts = (self._together, self._with_savepoints) if len(steps) > 1 else ()
        for attempt in attempts:
            try:
                return attempt(steps)
            except Exception as error:
                if is_collision(error):
                    break
                if is_unavailable(error):
                    return [Failed(translated(error)) for _ in steps]
        return [self._alone(step) for step in steps]

    def _alone(self, step: _Step) -> Any:
        """One step, which takes its locks in the order that all keep: a few attempts get it past others."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._together([step])[0]
            except Exception as error:
                if attempt == _ATTEMPTS or not is_collision(error):
                    return Failed(translated(error))
        raise AssertionError("unreachable: the last attempt returns")

    def _together(self, steps: Sequence[_Step]) -> list[Any]:
        with self._engine.begin() as connection:
            results: list[Any] = []
            for operation, group in itertools.groupby(steps, key=itemgetter(0)):
                results += operation(connection, [item for _, item in group])
            return results

    def _with_savepoints(self, steps: Sequence[_Step]) -> list[Any]:
        with self._engine.begin() as connection:
            return [_guarded(connection, step) for step in steps]


def _guarded(connection: Connection, step: _Step) -> Any:
    operation, item = step
    try:
        with connection.begin_nested():
            return operation(connection, [item])[0]
    except Exception as error:
        if is_unavailable(error) or is_collision(error):
            raise
        return Failed(error)


def _is_away(result: object) -> bool:
    """Whether something was not written because the database did not answer."""
    error = result.error if isinstance(result, Failed) else None
    return isinstance(error, EpochdError) and error.reason is Reason.STORAGE_UNAVAILABLE


def _settle(batch: Sequence[_Waiting], results: Sequence[list[Any]]) -> None:
    """Tells every waiter, with one wake-up a loop."""
    settled = sorted(zip(batch, results, strict=True), key=lambda pair: id(pair[0].loop))
    for _, group in itertools.groupby(settled, key=lambda pair: id(pair[0].loop)):
        pairs = list(group)
        loop = pairs[0][0].loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Sequence[tuple[_Waiting, list[Any]]]) -> None:
    for waiting, results in pairs:
        if not waiting.future.done():
            waiting.future.set_result(results)
