"""What must not be lost: database, artifacts, datasets."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from epochd_server.storage.answers import Answers
from epochd_server.storage.artifact_urls import open_artifacts
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.changes import ModelChanges
from epochd_server.storage.checkpoints import SqlCheckpoints
from epochd_server.storage.claims import SqlClaims
from epochd_server.storage.database import Database
from epochd_server.storage.datasets import Convert, DatasetStore
from epochd_server.storage.engines import is_shared, parse_url
from epochd_server.storage.failures import SequenceConflictError, StorageUnusableError
from epochd_server.storage.folder import DataFolder
from epochd_server.storage.models import SqlModelStore
from epochd_server.storage.pairing import hold_together
from epochd_server.storage.presence import Presence
from epochd_server.storage.runs import SqlRunStore

__all__ = [
    "Answers",
    "Artifacts",
    "Convert",
    "DataFolder",
    "Database",
    "DatasetStore",
    "ModelChanges",
    "SequenceConflictError",
    "SqlCheckpoints",
    "SqlClaims",
    "SqlModelStore",
    "SqlRunStore",
    "Storage",
    "StorageUnusableError",
    "open_storage",
]


CACHE_BYTES = 16 * 2**30
"""Of the local copies of what is read of a bucket, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Everything that is stored."""

    folder: DataFolder
    presence: Presence
    database: Database
    artifacts: Artifacts
    answers: Answers
    runs: SqlRunStore
    claims: SqlClaims
    checkpoints: SqlCheckpoints
    models: SqlModelStore
    datasets: DatasetStore

    def close(self) -> None:
        """Commits what waits and lets go of database and folder; blocks until done."""
        self.datasets.close()
        self.database.close()
        self.presence.close()
        self.folder.close()


def open_storage(
    data_dir: Path,
    *,
    convert: Convert,
    most_dataset_bytes: int,
    database_url: str | None = None,
    artifacts_url: str | None = None,
    cache_bytes: int = CACHE_BYTES,
    lease_s: float = 15.0,
    request_retention_s: float = 86_400.0,
) -> Storage:
    """Opens the storage of a server, and makes or upgrades what is not there; blocks until done.

    Args:
        data_dir: The data folder; only servers on the same PostgreSQL may use it at once.
        convert: Makes Arrow files of uploads.
        most_dataset_bytes: The largest upload that is taken.
        database_url: A PostgreSQL database; None: SQLite in the data folder.
        artifacts_url: A bucket or another folder for artifacts; None: in the data folder.
        cache_bytes: Of the local copies of what is read of a bucket.
        lease_s: After so long a silence of this server others on the same database take its runs.
        request_retention_s: For how many seconds a request_id is remembered.

    Raises:
        StorageUnusableError: Folder, database or artifacts cannot be used; says why in one line.
    """
    folder = DataFolder(data_dir, shared=database_url is not None and is_shared(database_url))
    with ExitStack() as opened:
        opened.callback(folder.close)
        presence = _be_present(folder)
        opened.callback(presence.close)
        store = artifacts_url or str(folder.artifacts)
        artifacts = open_artifacts(store, cache=folder.cache, cache_bytes=cache_bytes)
        database = Database(database_url or folder.database_url, server=presence.server)
        opened.callback(database.close)
        hold_together(parse_url(database_url or folder.database_url), artifacts, store)
        opened.pop_all()
    changes = ModelChanges()
    answers = Answers(database, request_retention_s)
    return Storage(
        folder=folder,
        presence=presence,
        database=database,
        artifacts=artifacts,
        answers=answers,
        runs=SqlRunStore(database, artifacts, changes, answers),
        claims=SqlClaims(database, changes, answers, lease_s=lease_s, presence=presence),
        checkpoints=SqlCheckpoints(database, artifacts),
        models=SqlModelStore(database, artifacts, changes, answers),
        datasets=DatasetStore(
            database,
            artifacts,
            uploads=folder.uploads,
            convert=convert,
            most_bytes=most_dataset_bytes,
            answers=answers,
        ),
    )


def _be_present(folder: DataFolder) -> Presence:
    """Shows other servers of a folder that this one lives.

    Raises:
        StorageUnusableError: The folder cannot be written to.
    """
    try:
        return Presence(folder.servers)
    except OSError as error:
        raise StorageUnusableError(
            f"the data folder {folder.path} cannot be written to: {error.strerror}"
        ) from error
