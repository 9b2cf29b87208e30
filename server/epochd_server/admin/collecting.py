"""`epochd admin gc`: what nobody refers to, and what is kept no longer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, delete, or_, select

from epochd_server.admin.checking import orphans
from epochd_server.admin.place import Place
from epochd_server.admin.references import UNFINISHED, artifact_references, unfinished_runs
from epochd_server.domain.resources import dataset_name, run_name
from epochd_server.storage.artifacts import StoredArtifact, discard
from epochd_server.storage.dataset_rows import is_used, to_file
from epochd_server.storage.schema import datasets, runs, to_micros
from epochd_server.storage.statements import AnyRow

_RUNS_AT_ONCE: Final = 100
"""Deleted in one transaction: a server that runs waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept for how long.

    Attributes:
        orphans: Artifacts that nothing refers to, and uploads that were not completed.
        runs: Runs after their end; None: for ever.
        datasets: Datasets after their upload and their last run; None: for ever.
    """

    orphans: timedelta
    runs: timedelta | None = None
    datasets: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was deleted, or would be.

    Attributes:
        runs: Names of runs.
        datasets: Names of datasets.
        orphans: Artifacts that nothing referred to.
        uploads: Names of files of uploads that were not completed.
        freed_bytes: Of datasets, orphans and uploads. A database keeps its room for new rows.
    """

    runs: Sequence[str]
    datasets: Sequence[str]
    orphans: Sequence[StoredArtifact]
    uploads: Sequence[str]
    freed_bytes: int


async def collect(place: Place, retention: Retention, *, dry_run: bool) -> Collected:
    """Deletes what is kept no longer, or with ``dry_run`` only finds it.

    Safe beside a running server: an artifact counts as an orphan only when it was old before the rows were read.
    """
    now = datetime.now(UTC)
    stored = [found async for found in place.artifacts.list()]
    with place.engine.begin() as connection:
        gone_runs = _expired_runs(connection, now, retention.runs)
        gone_datasets = _expired_datasets(connection, now, retention.datasets)
        references = artifact_references(connection)
        unfinished = unfinished_runs(connection)
    garbage = orphans(stored, references, unfinished, now - retention.orphans)
    uploads = _abandoned(place.folder / "uploads", now - retention.orphans)
    sizes = {found.name: found.size for found in stored}
    files = [name for row in gone_datasets for name in _files_of(row)]
    collected = Collected(
        runs=[run_name(run_id) for run_id in gone_runs],
        datasets=[dataset_name(row.digest) for row in gone_datasets],
        orphans=garbage,
        uploads=[path.name for path in uploads],
        freed_bytes=sum(sizes.get(name, 0) for name in files)
        + sum(found.size for found in garbage)
        + sum(path.stat().st_size for path in uploads),
    )
    if not dry_run:
        _delete_runs(place.engine, gone_runs)
        kept = _delete_datasets(place.engine, gone_datasets)
        await discard(place.artifacts, [name for name in files if name not in kept])
        await discard(place.artifacts, [found.name for found in garbage])
        for path in uploads:
            path.unlink(missing_ok=True)
    return collected


def _expired_runs(connection: Connection, now: datetime, age: timedelta | None) -> list[str]:
    if age is None:
        return []
    ended = runs.c.state.not_in(UNFINISHED), runs.c.end_time < to_micros(now - age)
    return list(connection.scalars(select(runs.c.run_id).where(*ended).order_by(runs.c.run_id)))


def _expired_datasets(connection: Connection, now: datetime, age: timedelta | None) -> list[AnyRow]:
    """Datasets that are old, and that no unfinished and no young run uses."""
    if age is None:
        return []
    cutoff = to_micros(now - age)
    using = or_(runs.c.state.in_(UNFINISHED), runs.c.create_time >= cutoff)
    used = [
        select(column).where(using, column.is_not(None))
        for column in (runs.c.dataset, runs.c.validation_dataset)
    ]
    old = select(datasets).where(
        datasets.c.create_time < cutoff, *(datasets.c.digest.not_in(some) for some in used)
    )
    return list(connection.execute(old.order_by(datasets.c.create_time)).all())


def _files_of(row: AnyRow) -> tuple[str, str]:
    file = to_file(row)
    return file.artifact, file.facts


def _delete_runs(engine: Engine, run_ids: list[str]) -> None:
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        some = run_ids[start : start + _RUNS_AT_ONCE]
        with engine.begin() as connection:
            connection.execute(delete(runs).where(runs.c.run_id.in_(some)))


def _delete_datasets(engine: Engine, expired: list[AnyRow]) -> set[str]:
    """Deletes datasets; the artifacts of those that a new run has begun to use."""
    kept: set[str] = set()
    for row in expired:
        using = select(runs.c.run_id).where(is_used(row.digest))
        with engine.begin() as connection:
            gone = delete(datasets).where(datasets.c.digest == row.digest, ~using.exists())
            if not connection.execute(gone).rowcount:
                kept.update(_files_of(row))
    return kept


def _abandoned(folder: Path, before: datetime) -> list[Path]:
    """Files of uploads to which nothing was added for long."""
    if not folder.is_dir():
        return []
    cutoff = before.timestamp()
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_file() and entry.stat().st_mtime < cutoff]
