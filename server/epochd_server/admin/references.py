"""What the rows of a database refer to: artifacts, and bytes beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, select, union

from epochd_server.domain.resources import dataset_name, run_name, version_name
from epochd_server.domain.runs import RunState
from epochd_server.storage.dataset_rows import to_file
from epochd_server.storage.schema import (
    checkpoints,
    datasets,
    runs,
    version_members,
    version_weights,
    versions,
)
from epochd_server.storage.statements import AnyRow, AnySelect

UNFINISHED: Final = [state.value for state in RunState if not state.is_terminal]
"""Values of the column ``state`` of runs that have not ended."""

_ROWS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Reference:
    """An artifact that a row names.

    Attributes:
        owner: The resource that needs it, such as ``models/wine/versions/3``.
        part: What it is of it: ``weights``, ``members``, ``rows``, ``facts`` or ``checkpoint``.
        artifact: Its name.
        digest: SHA-256 of its bytes in hex; None: it is not known.
        required: Whether its owner is damaged without it.
    """

    owner: str
    part: str
    artifact: str
    digest: str | None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that lie in the database; ``data`` is None where they are missing."""

    owner: str
    part: str
    digest: str
    data: bytes | None


def artifact_references(connection: Connection) -> list[Reference]:
    """Every artifact that a row names."""
    return [
        *_of_weights(connection),
        *_of_members(connection),
        *_of_datasets(connection),
        *_of_checkpoints(connection),
    ]


def inline_parts(connection: Connection) -> Iterator[Inline]:
    """Everything with a digest that lies in the database, a few rows in memory at a time."""
    found = version_weights.c.model == versions.c.model, version_weights.c.version == versions.c.version
    weights: AnySelect = (
        select(versions.c.model, versions.c.version, versions.c.weights_digest, version_weights.c.data)
        .join_from(versions, version_weights, and_(*found), isouter=True)
        .where(versions.c.weights_artifact.is_(None))
    )
    for model, version, digest, data in _streamed(connection, weights):
        yield Inline(version_name(model, version), "weights", digest, data)
    columns = version_members.c
    members: AnySelect = select(columns.model, columns.version, columns.digest, columns.data).where(
        columns.artifact.is_(None)
    )
    for model, version, digest, data in _streamed(connection, members):
        yield Inline(version_name(model, version), "members", digest, data)
    saved: AnySelect = select(checkpoints.c.run_id, checkpoints.c.digest, checkpoints.c.data).where(
        checkpoints.c.artifact.is_(None)
    )
    for run_id, digest, data in _streamed(connection, saved):
        yield Inline(run_name(run_id), "checkpoint", digest, data)


def unfinished_runs(connection: Connection) -> set[str]:
    """Ids of runs that have not ended, whose artifacts may be stored before a row names them."""
    return set(connection.scalars(select(runs.c.run_id).where(runs.c.state.in_(UNFINISHED))))


def missing_datasets(connection: Connection) -> list[tuple[str, str]]:
    """Names of unfinished runs and of the datasets that they need and that are not there."""
    statement = union(
        *(
            select(runs.c.run_id, column)
            .join_from(runs, datasets, column == datasets.c.digest, isouter=True)
            .where(runs.c.state.in_(UNFINISHED), column.is_not(None), datasets.c.digest.is_(None))
            for column in (runs.c.dataset, runs.c.validation_dataset)
        )
    )
    return [(run_name(run_id), dataset_name(digest)) for run_id, digest in connection.execute(statement)]


def _of_weights(connection: Connection) -> Iterator[Reference]:
    columns = versions.c
    statement = select(
        columns.model, columns.version, columns.weights_artifact, columns.weights_digest
    ).where(columns.weights_artifact.is_not(None))
    for model, version, artifact, digest in connection.execute(statement):
        yield Reference(version_name(model, version), "weights", artifact, digest)


def _of_members(connection: Connection) -> Iterator[Reference]:
    columns = version_members.c
    statement = select(columns.model, columns.version, columns.artifact, columns.digest).where(
        columns.artifact.is_not(None)
    )
    for model, version, artifact, digest in connection.execute(statement):
        yield Reference(version_name(model, version), "members", artifact, digest)


def _of_checkpoints(connection: Connection) -> Iterator[Reference]:
    columns = checkpoints.c
    statement = select(columns.run_id, columns.artifact, columns.digest).where(columns.artifact.is_not(None))
    for run_id, artifact, digest in connection.execute(statement):
        yield Reference(run_name(run_id), "checkpoint", artifact, digest)


def _of_datasets(connection: Connection) -> Iterator[Reference]:
    for row in connection.execute(select(datasets)):
        file, owner = to_file(row), dataset_name(row.digest)
        yield Reference(owner, "rows", file.artifact, file.digest)
        yield Reference(owner, "facts", file.facts, None, required=False)


def _streamed(connection: Connection, statement: AnySelect) -> Iterable[AnyRow]:
    return connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(statement)
