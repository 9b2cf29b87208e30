"""`epochd admin backup`: a consistent copy of an embedded server, while it runs.

Artifacts never change, so that what makes a copy consistent is an order: first every artifact that there is, then the
database as it is at one instant, then the artifacts that it names and that came in between. One that is missing by
then was deleted in between, and the next copy of the database no longer names it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from epochd_server.admin.checking import MISSING, Damage
from epochd_server.admin.manifest import ARTIFACTS, DATABASE, BackedUp, Manifest
from epochd_server.admin.place import database_url
from epochd_server.admin.references import Reference, artifact_references
from epochd_server.settings import Settings
from epochd_server.storage.artifact_urls import local_folder
from epochd_server.storage.durable_files import copy_synced, digest_of_file, sync_path
from epochd_server.storage.engines import make_engine, parse_url
from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.local_artifacts import INCOMING
from epochd_server.storage.schema import HEAD

_ATTEMPTS: Final = 5


def back_up(settings: Settings, destination: Path, *, copy: bool) -> tuple[Manifest, list[Damage]]:
    """Copies a server's state to a new folder, which is there whole or not at all.

    Args:
        settings: Those of the server.
        destination: Must not be there, or be empty.
        copy: Whether artifacts are copied where they could be linked.

    Returns:
        What is in the backup, and which artifacts the server itself lacks. Digests are verified by a restore.

    Raises:
        StorageUnusableError: The server is not embedded, or the destination cannot be used.
    """
    database, artifacts = embedded(settings)
    with new_folder(destination) as fresh:
        return _Backup(database, artifacts, fresh, copy=copy).make()


class _Backup:
    """One backup in the making."""

    def __init__(self, database: Path, artifacts: Path, folder: Path, *, copy: bool) -> None:
        self._database = database
        self._artifacts = artifacts
        self._folder = folder
        self._copy = copy

    def make(self) -> tuple[Manifest, list[Damage]]:
        """Makes it; what is missing is told."""
        for path in _files(self._artifacts):
            self._take(path.relative_to(self._artifacts).as_posix())
        missing: list[Reference] = []
        for _ in range(_ATTEMPTS):
            before, created = missing, datetime.now(UTC)
            _copy_database(self._database, self._folder / DATABASE)
            references = _references(self._folder / DATABASE)
            missing = [found for found in references if found.required and not self._take(found.artifact)]
            if missing == before:  # nothing is missing, or what is was not deleted in between
                break
        self._drop_unnamed({reference.artifact for reference in references})
        manifest = Manifest(created.isoformat(), HEAD, list(self._list(references)))
        manifest.write(self._folder)
        return manifest, [Damage(found.owner, found.part, MISSING, found.artifact) for found in missing]

    def _take(self, name: str) -> bool:
        """Makes sure that an artifact is in the backup; False where it is gone."""
        source, target = self._artifacts / name, self._folder / ARTIFACTS / name
        if target.exists():
            return True
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            link_or_copy(source, target, copy=self._copy)
        except FileNotFoundError:
            return False
        return True

    def _drop_unnamed(self, named: set[str]) -> None:
        root = self._folder / ARTIFACTS
        for path in _files(root):
            if path.relative_to(root).as_posix() not in named:
                path.unlink()

    def _list(self, references: list[Reference]) -> Iterator[BackedUp]:
        database = self._folder / DATABASE
        yield BackedUp(DATABASE, database.stat().st_size, digest_of_file(database), "")
        for reference in references:
            path = self._folder / ARTIFACTS / reference.artifact
            if path.exists():
                below = f"{ARTIFACTS}/{reference.artifact}"
                yield BackedUp(below, path.stat().st_size, reference.digest, reference.owner)


def embedded(settings: Settings) -> tuple[Path, Path]:
    """The SQLite file and the artifact folder of a server.

    Raises:
        StorageUnusableError: It is on PostgreSQL or a bucket, or there is none.
    """
    url = database_url(settings)
    if url.get_backend_name() != "sqlite":
        raise StorageUnusableError(
            "the server is on PostgreSQL: back that up with its own tools, such as pg_dump"
        )
    artifacts = local_folder(settings.artifacts or str(settings.data_dir / "artifacts"))
    if artifacts is None:
        raise StorageUnusableError("the artifacts are in a bucket: back that up with its own tools")
    database = Path(url.database or "")
    if not database.is_file():
        raise StorageUnusableError(f"there is no database {database}")
    return database, artifacts


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A folder beside ``destination`` that becomes it, durably, when all is done, and is deleted if that fails.

    Raises:
        StorageUnusableError: There is something at the destination, or it cannot be written to.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise StorageUnusableError(f"{destination} is not empty")
    fresh = destination.with_name(f".{destination.name}.{os.urandom(4).hex()}")
    try:
        (fresh / ARTIFACTS).mkdir(parents=True)
        yield fresh
        for path in sorted(fresh.rglob("*"), reverse=True):
            if path.is_dir():
                sync_path(path)
        sync_path(fresh)
        fresh.rename(destination)
        sync_path(destination.parent)
    except OSError as error:
        raise StorageUnusableError(f"{destination} cannot be written to: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def link_or_copy(source: Path, target: Path, *, copy: bool) -> None:
    """Makes a file the same as another that never changes: by a link where that is wanted and possible."""
    if not copy:
        try:
            target.hardlink_to(source)
            return
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            pass
    copy_synced(source, target)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).parts[0] != INCOMING:
            yield path


def _copy_database(source: Path, target: Path) -> None:
    """Copies a database as it is at one instant; its writers wait for nothing."""
    target.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copied:
            original.backup(copied)
            copied.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise StorageUnusableError(f"the database cannot be copied: {error}") from error
    sync_path(target)


def _references(database: Path) -> list[Reference]:
    engine = make_engine(parse_url(f"sqlite:///{database}"), connections=1, read_only=True)
    try:
        with engine.begin() as connection:
            return artifact_references(connection)
    finally:
        engine.dispose()
