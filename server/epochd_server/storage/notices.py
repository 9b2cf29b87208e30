"""What servers on one PostgreSQL tell each other, by LISTEN and NOTIFY.

PostgreSQL delivers a notice once the transaction that tells it is committed, and to nobody if it is undone. Notices
are not stored: a server whose connection is lost for a moment misses some. So nothing depends on them but how soon
something is noticed; whoever acts on them looks again from time to time all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

import psycopg
import structlog
from sqlalchemy import URL, Connection, text

from epochd_server.domain.records import Notice, NoticeKind
from epochd_server.storage.engines import postgres_arguments
from epochd_server.storage.statements import is_postgresql

_CHANNEL = "epochd"
_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_MOST_BYTES = 7_900
"""Of a payload: PostgreSQL takes less than 8,000."""
_RECONNECT_SECONDS = 0.5
_KINDS = frozenset(kind.value for kind in NoticeKind)
"""Servers of a newer version may tell more."""

_logger = structlog.get_logger(__name__)


class Notices:
    """Tells other servers what this one commits, and hears what they do.

    Args:
        server: This server's name, by which it knows its own notices.
        url: The database.
    """

    def __init__(self, server: str, url: URL) -> None:
        self._server = server
        self._url = url
        self.has_listeners = False
        """Whether other servers live; what is frequent is told only then."""

    def tell(self, connection: Connection, kind: NoticeKind, names: Sequence[str]) -> None:
        """Has others told when the transaction is committed. On SQLite there are none."""
        if is_postgresql(connection):
            for payload in _payloads(f"{self._server} {kind.value}", names):
                connection.execute(_NOTIFY, {"channel": _CHANNEL, "payload": payload})

    async def listen(self) -> AsyncGenerator[Notice, None]:
        """What other servers tell, for ever; on SQLite nothing. Where the connection is lost another is made."""
        while self._url.get_backend_name() == "postgresql":
            try:
                async with aclosing(self._hear()) as heard:
                    async for notice in heard:
                        yield notice
            except (psycopg.Error, OSError) as error:
                _logger.warning("other servers are not heard; will listen again", problem=str(error).strip())
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _hear(self) -> AsyncGenerator[Notice, None]:
        """What is told as long as one connection lasts."""
        arguments = postgres_arguments(self._url)
        async with await psycopg.AsyncConnection.connect(autocommit=True, **arguments) as connection:
            await connection.execute(f"LISTEN {_CHANNEL}")
            async for message in connection.notifies():
                server, kind, *names = message.payload.split(" ")
                if server != self._server and kind in _KINDS:
                    yield Notice(NoticeKind(kind), tuple(names))


def _payloads(head: str, names: Sequence[str]) -> Iterator[str]:
    """A head and names, separated by spaces, in as few payloads as they fit into: one at least."""
    words, room = [head], _MOST_BYTES - len(head.encode())
    for name in names:
        room -= len(name.encode()) + 1
        if room < 0:
            yield " ".join(words)
            words, room = [head, name], _MOST_BYTES - len(f"{head} {name}".encode())
        else:
            words.append(name)
    yield " ".join(words)
