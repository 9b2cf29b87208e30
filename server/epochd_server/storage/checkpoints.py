"""Checkpoints of runs: implements ``runs.ports.Checkpoints``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, delete, func, insert, select

from epochd_server.domain.checkpoints import Checkpoint
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.records import FoundCheckpoint, SavedCheckpoint
from epochd_server.domain.runs import RunState
from epochd_server.storage.artifacts import ArtifactDamagedError, Artifacts, discard
from epochd_server.storage.blobs import INLINE_BYTES
from epochd_server.storage.checkpoint_files import pack, unpack
from epochd_server.storage.database import Database
from epochd_server.storage.durable_files import digest_of
from epochd_server.storage.schema import checkpoints, runs
from epochd_server.storage.statements import AnyRow, Returning
from epochd_server.storage.writer import Failed

KEPT = 2
"""Checkpoints of a run: the newest, and the one before for when that is damaged."""

_ENDED = [state.value for state in RunState if state.is_terminal]

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _New:
    run_id: str
    claim: int
    data: bytes
    digest: str
    artifact: str | None

    @classmethod
    def of(cls, saved: SavedCheckpoint) -> _New:
        data, run_id = pack(saved.checkpoint), saved.run_id
        digest = digest_of(data)
        artifact = f"checkpoints/{run_id}.{digest}.safetensors" if len(data) > INLINE_BYTES else None
        return cls(run_id, saved.claim, data, digest, artifact)


class SqlCheckpoints:
    """Checkpoints on SQLite or PostgreSQL, the large ones as artifacts.

    Args:
        database: Holds the runs.
        artifacts: Holds what is too large for the database.
    """

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._database = database
        self._artifacts = artifacts

    async def save(self, saved: Sequence[SavedCheckpoint]) -> None:
        """Keeps where runs are, and lets go of what is older than the last two. Of lost claims nothing is kept.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE, or what else keeps one of them from being written.
        """
        new = await asyncio.to_thread(lambda: [_New.of(one) for one in saved])
        for one in new:
            if one.artifact is not None:
                await self._artifacts.put(one.artifact, one.data)
        results = await self._database.write_each(_add_all, new)
        for result in results:
            if isinstance(result, Failed):
                raise result.error
            await discard(self._artifacts, result)

    async def newest(self, run_id: str) -> FoundCheckpoint:
        """Where a run was when it was saved last; the one before where that is damaged.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """
        statement = (
            select(checkpoints).where(checkpoints.c.run_id == run_id).order_by(checkpoints.c.number.desc())
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        for damaged, row in enumerate(rows):
            try:
                return FoundCheckpoint(await asyncio.to_thread(self._load, row), damaged)
            except EpochdError as error:
                if error.reason is not Reason.ARTIFACT_CORRUPT:
                    raise
                _logger.error("a checkpoint is damaged", run=run_id, number=row.number)
        return FoundCheckpoint(None, len(rows))

    async def forget_ended(self, run_ids: Sequence[str] | None = None) -> None:
        """Deletes the checkpoints of runs that have ended.

        Args:
            run_ids: Those of these that have; None: of all.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """
        ended = select(runs.c.run_id).where(runs.c.state.in_(_ENDED))
        if run_ids is not None:
            ended = ended.where(runs.c.run_id.in_(run_ids))
        gone = delete(checkpoints).where(checkpoints.c.run_id.in_(ended)).returning(checkpoints.c.artifact)
        names = await self._database.write(lambda connection: _artifacts(connection, gone))
        await discard(self._artifacts, names)

    def _load(self, row: AnyRow) -> Checkpoint | None:
        if row.artifact is None:
            if digest_of(row.data) != row.digest:
                raise EpochdError(Reason.ARTIFACT_CORRUPT)
            return unpack(memoryview(row.data))
        try:
            return unpack(self._artifacts.map(row.artifact, row.digest))
        except (FileNotFoundError, ArtifactDamagedError) as error:
            raise EpochdError(Reason.ARTIFACT_CORRUPT) from error


def _add_all(connection: Connection, new: Sequence[_New]) -> list[list[str]]:
    """Adds checkpoints of different runs; for each the artifacts that nothing refers to any more."""
    return [_add(connection, one) for one in new]


def _add(connection: Connection, new: _New) -> list[str]:
    of_run = checkpoints.c.run_id == new.run_id
    mine = (runs.c.run_id == new.run_id, runs.c.claim == new.claim, runs.c.state.not_in(_ENDED))
    if connection.scalar(select(runs.c.run_id).where(*mine).with_for_update()) is None:
        kept = set(connection.scalars(select(checkpoints.c.artifact).where(of_run)))
        return [name for name in (new.artifact,) if name is not None and name not in kept]
    newest = connection.scalar(select(func.max(checkpoints.c.number)).where(of_run)) or 0
    row = {
        "run_id": new.run_id,
        "number": newest + 1,
        "digest": new.digest,
        "artifact": new.artifact,
        "data": new.data if new.artifact is None else None,
    }
    connection.execute(insert(checkpoints), row)
    old = (of_run, checkpoints.c.number <= newest + 1 - KEPT)
    gone = set(_artifacts(connection, delete(checkpoints).where(*old).returning(checkpoints.c.artifact)))
    kept = set(connection.scalars(select(checkpoints.c.artifact).where(of_run)))
    return sorted(gone - kept)


def _artifacts(connection: Connection, returning: Returning) -> list[str]:
    return [name for name in connection.scalars(returning) if name is not None]
