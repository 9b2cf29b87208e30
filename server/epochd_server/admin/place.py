"""Where a server's state is, opened beside the server that may be using it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from epochd_server.settings import Settings
from epochd_server.storage.artifact_urls import open_artifacts
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.engines import make_engine, parse_url
from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.pairing import check_together
from epochd_server.storage.schema import HEAD


@dataclass(frozen=True, slots=True)
class Place:
    """A server's state.

    Attributes:
        engine: Its database.
        artifacts: Its artifacts.
        store: Where those are.
        folder: Its data folder.
    """

    engine: Engine
    artifacts: Artifacts
    store: str
    folder: Path


@contextmanager
def open_place(settings: Settings, *, writing: bool, together: bool = True) -> Iterator[Place]:
    """Opens what the settings name; nothing is made or upgraded.

    Args:
        settings: Those of the server.
        writing: Whether the database is to be changed.
        together: Whether the artifacts must be those of the database.

    Raises:
        StorageUnusableError: It is not there, cannot be used, or its schema is not this program's; or database and
            artifacts are of different servers.
    """
    folder = settings.data_dir.absolute()
    if not folder.is_dir():
        raise StorageUnusableError(f"there is no data folder {folder}")
    url = database_url(settings)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise StorageUnusableError(f"there is no database {url.database}")
    with ExitStack() as cleanup:
        engine = make_engine(url, connections=1, read_only=not writing)
        cleanup.callback(engine.dispose)
        _check_schema(engine)
        cache = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="epochd-admin-"))
        # Copies of what is in a bucket are looked at once: the server's own cache is left alone.
        store = settings.artifacts or str(folder / "artifacts")
        artifacts = open_artifacts(store, cache=Path(cache), cache_bytes=0, hold_seconds=0.0)
        if together:
            with engine.begin() as connection:
                check_together(connection, artifacts, store)
        yield Place(engine, artifacts, store, folder)


def database_url(settings: Settings) -> URL:
    """The database that the settings name, or else that of the data folder.

    Raises:
        StorageUnusableError: It is no URL of a database.
    """
    return parse_url(settings.database_url or f"sqlite:///{settings.data_dir.absolute() / 'epochd.db'}")


def _check_schema(engine: Engine) -> None:
    try:
        with engine.begin() as connection:
            found = None
            if inspect(connection).has_table("alembic_version"):
                found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    except DBAPIError as error:
        raise StorageUnusableError(f"the database cannot be used: {error.orig}") from error
    if found != HEAD:
        raise StorageUnusableError(
            f"the database has schema {found or 'none'}, this epochd knows schema {HEAD}; "
            "use the epochd of the server, or start that of this version once to upgrade it"
        )
