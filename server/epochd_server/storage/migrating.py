"""Brings a database's schema up to date when the server starts."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.schema import HEAD

_LOCK = 0x65706F636864
"""Key of the advisory lock (PostgreSQL) that lets one server at a time migrate: "epochd" in ASCII."""

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""Every schema that this server can bring up to date, oldest first."""


def migrate(engine: Engine) -> None:
    """Applies the migrations that are missing, all or none of them, safely while other servers do the same.

    Raises:
        StorageUnusableError: The database cannot be reached, or is of a newer server.
    """
    try:
        with engine.begin() as connection:
            _lock(connection)
            current = _current(connection)
            if current == HEAD:
                return
            if current is not None and current not in KNOWN:
                raise StorageUnusableError(
                    f"the database has schema {current} of a newer epochd; this one knows schemas up to {HEAD}. "
                    "Upgrade epochd, or use another database"
                )
            upgrade(connection)
    except DBAPIError as error:
        raise StorageUnusableError(f"the database cannot be used: {_first_line(error)}") from error


def _lock(connection: Connection) -> None:
    """Waits for other servers that migrate. SQLite's transaction has locked the file already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Applies the migrations that are missing up to one of :data:`KNOWN`, in the connection's transaction."""
    from alembic import command, config  # takes a quarter of a second to import, and is needed once a schema

    settings = config.Config()
    settings.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]
