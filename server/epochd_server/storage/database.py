"""The database as the rest of the server sees it: asynchronous reads and durable writes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage.engines import make_engine, parse_url
from epochd_server.storage.failures import translating
from epochd_server.storage.migrating import migrate
from epochd_server.storage.notices import Notices
from epochd_server.storage.writer import Failed, GroupWriter, Operation, Together

T = TypeVar("T")
Item = TypeVar("Item")


class Database:
    """Opens a database and brings its schema up to date.

    Args:
        url: ``sqlite:////path/to/file.db`` or ``postgresql://user@host/name``.
        readers: How many reads run at once.
        timeout_s: After so long an operation that did not answer fails with STORAGE_UNAVAILABLE.
        server: The name of this server among those that share the database; no two have the same.

    Attributes:
        server: This server's name.
        notices: What the servers tell each other.

    Raises:
        StorageUnusableError: The database cannot be reached, or is of a newer server.
    """

    def __init__(
        self, url: str, *, readers: int = 4, timeout_s: float = 8.0, server: str | None = None
    ) -> None:
        parsed = parse_url(url)
        self.server = server or uuid.uuid4().hex
        self.notices = Notices(self.server, parsed)
        self._timeout_s = timeout_s
        self._writing = make_engine(parsed, connections=1)
        try:
            migrate(self._writing)
        except BaseException:
            self._writing.dispose()
            raise
        self._reading = make_engine(parsed, connections=readers, read_only=True)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="storage-reader")
        self._writer = GroupWriter(self._writing)

    @property
    def is_shared(self) -> bool:
        """Whether other servers may write to this database too."""
        return self._writing.dialect.name == "postgresql"

    async def write(self, operation: Operation[T]) -> T:
        """Runs an operation in a transaction and returns its result once that is on disk.

        After STORAGE_UNAVAILABLE nobody knows whether it was committed, so operations are made to be repeatable.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE; or whatever the operation raises, its changes undone.
        """
        (result,) = await self.write_each(_run, [operation])
        if isinstance(result, Failed):
            raise result.error
        return result

    async def write_each(self, operation: Together[Item, T], items: Sequence[Item]) -> list[T | Failed]:
        """Has an operation write many items, and those of others that wait too; the results once they are on disk.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE, where no answer came in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._writer.submit(operation, items)
        except TimeoutError as error:
            raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error

    async def read(self, operation: Operation[T], *, timeout_s: float | None = None) -> T:
        """Runs an operation that only reads.

        Args:
            operation: What is read.
            timeout_s: Instead of the database's own limit, for what may rightly take long.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE; or whatever the operation raises.
        """
        loop = asyncio.get_running_loop()
        with translating():
            reading = loop.run_in_executor(self._readers, self._read, operation)
            return await asyncio.wait_for(reading, timeout_s or self._timeout_s)

    def close(self) -> None:
        """Commits what waits and closes every connection; blocks until done."""
        self._writer.close()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()

    def _read(self, operation: Operation[T]) -> T:
        with self._reading.begin() as connection:
            return operation(connection)


def _run(connection: Connection, operations: Sequence[Operation[T]]) -> list[T]:
    return [operation(connection) for operation in operations]
