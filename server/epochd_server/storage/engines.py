"""SQLAlchemy engines for the databases that the server runs on: SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from epochd_server.storage.failures import StorageUnusableError

BUSY_TIMEOUT_MS = 2_500
"""How long SQLite waits for another process's transaction: no caller hangs for longer."""
CONNECT_TIMEOUT_S = 3

_POSTGRES_ARGUMENTS = {
    "client_encoding": "utf8",  # else a database in SQL_ASCII gives bytes where text is expected
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A peer that vanished is noticed within seconds, idle or not.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
    # A server that is stopped in the middle of a transaction does not keep its locks from those that take its runs.
    "options": "-c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000 -c timezone=UTC",
    "application_name": "epochd",
}


def parse_url(text: str) -> URL:
    """The database's URL with the driver filled in.

    Raises:
        StorageUnusableError: ``text`` is no URL of SQLite or PostgreSQL.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise StorageUnusableError(
            "the database URL cannot be read; write postgresql://user@host/name"
        ) from None
    backend = url.get_backend_name()
    if backend == "postgres":
        backend = "postgresql"
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite+pysqlite")
    raise StorageUnusableError(
        f"the database URL {url.render_as_string()!r} is neither a SQLite file nor PostgreSQL"
    )


def is_shared(text: str) -> bool:
    """Whether other servers may use the database of this URL at the same time."""
    return text.startswith("postgres")


def make_engine(url: URL, *, connections: int, read_only: bool = False) -> Engine:
    """An engine with so many connections, opened when first needed and replaced when lost.

    SQLite: write-ahead log, fsync at every commit, foreign keys; a writing transaction locks at its start.
    """
    common: dict[str, Any] = {"pool_size": connections, "max_overflow": 0, "pool_timeout": CONNECT_TIMEOUT_S}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, **common)
        _prepare_sqlite(engine, read_only=read_only)
        return engine
    return create_engine(url, **common, pool_pre_ping=True, connect_args=_defaults(url))


def postgres_arguments(url: URL) -> dict[str, Any]:
    """With what psycopg connects to a PostgreSQL that has this URL."""
    _, named = url.get_dialect()().create_connect_args(url)
    return {**_defaults(url), **named}


def _defaults(url: URL) -> dict[str, Any]:
    return {name: value for name, value in _POSTGRES_ARGUMENTS.items() if name not in url.query}


def _prepare_sqlite(engine: Engine, *, read_only: bool) -> None:
    pragmas = [
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-16000",
        *(["query_only=ON"] if read_only else []),
    ]
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGINs would come too late and break savepoints
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
