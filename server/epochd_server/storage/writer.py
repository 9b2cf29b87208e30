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
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage.failures import is_collision, is_unavailable, translated

T = TypeVar("T")

Operation = Callable[[Connection], T]
"""What is done in a transaction. May be called again after its changes were undone, so it changes nothing else."""

_MOST_IN_ONE_COMMIT = 1024
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An operation and who waits for it."""

    operation: Operation[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an operation returned, or what it raised."""

    value: Any = None
    error: Exception | None = None


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

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Queues an operation; must be called in a running loop.

        A future that is cancelled before the operation's transaction began is never run.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._wake:
            if self._closed:
                raise EpochdError(Reason.SERVER_STOPPING)
            self._waiting.append(_Waiting(operation, future, loop))
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
                _settle(live, self._commit([waiting.operation for waiting in live]))

    def _next_batch(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            count = min(len(self._waiting), _MOST_IN_ONE_COMMIT)
            return [self._waiting.popleft() for _ in range(count)]

    def _commit(self, operations: Sequence[Operation[Any]]) -> list[_Outcome]:
        """Everything in one transaction; if anything fails, again with a savepoint around each operation."""
        attempts = (self._together, self._with_savepoints) if len(operations) > 1 else ()
        for attempt in attempts:
            try:
                return attempt(operations)
            except Exception as error:
                if is_collision(error):
                    break
                if is_unavailable(error):
                    return [_Outcome(error=translated(error)) for _ in operations]
        return [self._alone(operation) for operation in operations]

    def _alone(self, operation: Operation[Any]) -> _Outcome:
        """One operation, which takes its locks in the order that all keep: a few attempts get it past others."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._together([operation])[0]
            except Exception as error:
                if attempt == _ATTEMPTS or not is_collision(error):
                    return _Outcome(error=translated(error))
        raise AssertionError("unreachable: the last attempt returns")

    def _together(self, operations: Sequence[Operation[Any]]) -> list[_Outcome]:
        with self._engine.begin() as connection:
            return [_Outcome(operation(connection)) for operation in operations]

    def _with_savepoints(self, operations: Sequence[Operation[Any]]) -> list[_Outcome]:
        with self._engine.begin() as connection:
            return [_guarded(connection, operation) for operation in operations]


def _guarded(connection: Connection, operation: Operation[Any]) -> _Outcome:
    try:
        with connection.begin_nested():
            return _Outcome(operation(connection))
    except Exception as error:
        if is_unavailable(error) or is_collision(error):
            raise
        return _Outcome(error=error)


def _settle(batch: Sequence[_Waiting], outcomes: Sequence[_Outcome]) -> None:
    """Tells every waiter, with one wake-up a loop."""
    settled = sorted(zip(batch, outcomes, strict=True), key=lambda pair: id(pair[0].loop))
    for _, group in itertools.groupby(settled, key=lambda pair: id(pair[0].loop)):
        pairs = list(group)
        loop = pairs[0][0].loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Sequence[tuple[_Waiting, _Outcome]]) -> None:
    for waiting, outcome in pairs:
        if waiting.future.done():
            continue
        if outcome.error is not None:
            waiting.future.set_exception(outcome.error)
        else:
            waiting.future.set_result(outcome.value)
