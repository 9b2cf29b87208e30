"""What can go wrong with storage, and which of it a client may hear of."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import exc

from epochd_server.domain.errors import EpochdError, Reason


class StorageUnusableError(Exception):
    """The server cannot start on its data folder or database; the message is one line for its operator."""


class SequenceConflictError(Exception):
    """Events do not follow the newest one of their run, or the run has ended: another writer was faster."""


_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
_POSTGRES_COLLISIONS = frozenset({"40001", "40P01"})


def is_collision(error: BaseException) -> bool:
    """Whether PostgreSQL undid a transaction because it met another one: a deadlock or a serialisation failure."""
    return isinstance(error, exc.DBAPIError) and getattr(error.orig, "sqlstate", None) in _POSTGRES_COLLISIONS


def is_unavailable(error: BaseException) -> bool:
    """Whether the database did not answer, is full or is locked, as opposed to having refused a statement."""
    if isinstance(error, exc.TimeoutError | exc.DisconnectionError | TimeoutError):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_UNAVAILABLE
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)


def translated(error: Exception) -> Exception:
    """STORAGE_UNAVAILABLE caused by ``error`` where the database is unavailable, otherwise ``error`` itself."""
    if not is_unavailable(error):
        return error
    unavailable = EpochdError(Reason.STORAGE_UNAVAILABLE)
    unavailable.__cause__ = error
    return unavailable


@contextmanager
def translating() -> Iterator[None]:
    """Raises what the block raises, as :func:`translated` says."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except Exception as error:
        told = translated(error)
        if told is error:
            raise
        raise told from error
