"""Which artifacts are those of a database: it knows the name of a mark, an empty artifact that lies among them.

A name that is looked for in a list, and no content: nothing of it is ever read through a cache that may have been
filled from another store. A store may bear the marks of several databases.
"""

from __future__ import annotations

import socket
import uuid
from typing import Final

from sqlalchemy import URL, Connection, select, update

from epochd_server.domain.errors import EpochdError
from epochd_server.storage.artifact_urls import local_folder
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.engines import make_engine
from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.schema import artifact_stores
from epochd_server.storage.statements import is_inserted

_ONLY: Final = 1
"""The number of the one row."""


def hold_together(database: URL, artifacts: Artifacts, url: str) -> None:
    """Makes sure that artifacts are those of a database, and makes them so where it never had any; blocks.

    Of servers that start at once on a new database one writes the row, in a transaction that it ends after it has
    marked its artifacts; the others wait for that. A mark without a row, which a crash in between leaves, is harmless.

    Args:
        database: Its schema is up to date.
        artifacts: An open store.
        url: Where that is.

    Raises:
        StorageUnusableError: The artifacts of the database are others, or the store does not answer.
    """
    engine = make_engine(database, connections=1)
    try:
        with engine.begin() as connection:
            here, fresh = place_of(url), uuid.uuid4().hex
            if is_inserted(connection, artifact_stores, {"number": _ONLY, "mark": fresh, "place": here}):
                _mark(artifacts, fresh, here)
                return
            check_together(connection, artifacts, url)
            moved = artifact_stores.c.place != here
            connection.execute(update(artifact_stores).where(moved).values(place=here))
    finally:
        engine.dispose()


def check_together(connection: Connection, artifacts: Artifacts, url: str) -> None:
    """Compares mark and row; a database that never had artifacts may have any. Blocks.

    Raises:
        StorageUnusableError: The artifacts of the database are others, or the store does not answer.
    """
    known, here = connection.execute(select(artifact_stores)).one_or_none(), place_of(url)
    if known is None or known.mark in _marks(artifacts, here):
        return
    raise StorageUnusableError(
        f"the artifacts of the database are in {known.place}, and {here} is not marked as theirs: use those "
        "(--artifacts, --data-dir), or run `epochd admin adopt` where they were moved or lost"
    )


def adopt(connection: Connection, artifacts: Artifacts, url: str) -> None:
    """Makes artifacts those of a database, whatever it had before; blocks.

    Raises:
        StorageUnusableError: The store does not answer.
    """
    here = place_of(url)
    mark = mark_of(connection)
    if mark is None:
        mark = uuid.uuid4().hex
        is_inserted(connection, artifact_stores, {"number": _ONLY, "mark": mark, "place": here})
    _mark(artifacts, mark, here)
    connection.execute(update(artifact_stores).values(place=here))


def mark_of(connection: Connection) -> str | None:
    """The mark that the artifacts of a database bear; None: no server has started on it yet."""
    return connection.scalar(select(artifact_stores.c.mark))


def place_of(url: str) -> str:
    """How a store is called to people: a folder is one of a machine."""
    folder = local_folder(url)
    return url if folder is None else f"{folder} on {socket.gethostname()}"


def _mark(artifacts: Artifacts, mark: str, here: str) -> None:
    try:
        artifacts.mark(mark)
    except EpochdError as error:
        raise _unusable(here, error) from error


def _marks(artifacts: Artifacts, here: str) -> frozenset[str]:
    try:
        return artifacts.marks()
    except EpochdError as error:
        raise _unusable(here, error) from error


def _unusable(here: str, error: EpochdError) -> StorageUnusableError:
    reason = str(error.__cause__ or error).strip().partition("\n")[0][:300]
    return StorageUnusableError(f"the artifact store {here} cannot be used: {reason}")
