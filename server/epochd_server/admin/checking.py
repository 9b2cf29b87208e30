"""`epochd admin check`: every digest and every reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, func, or_, select, text

from epochd_server.admin.place import Place
from epochd_server.admin.references import (
    Reference,
    artifact_references,
    inline_parts,
    missing_datasets,
    unfinished_runs,
)
from epochd_server.domain.resources import run_name
from epochd_server.storage.artifacts import MARKS, ArtifactDamagedError, Artifacts, StoredArtifact
from epochd_server.storage.durable_files import digest_of
from epochd_server.storage.schema import datasets, events, runs, versions

IN_FLIGHT: Final = timedelta(hours=1)
"""Artifacts so young may belong to a row that is about to be written."""

MISSING: Final = "missing"
CHANGED: Final = "does not have its digest"

Progress = Callable[[int, int], None]
"""Told how many artifacts were looked at, of how many."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was stored.

    Attributes:
        name: The resource that is damaged; empty where it is the database itself.
        part: What of it.
        problem: What is wrong.
        artifact: The artifact concerned; None: it is in the database.
    """

    name: str
    part: str
    problem: str
    artifact: str | None = None


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        versions: Versions checked.
        datasets: Datasets checked.
        runs: Runs whose logs were checked.
        artifacts: Artifacts whose bytes were read.
        artifact_bytes: Bytes of all artifacts.
        damage: What is damaged.
        orphans: Artifacts that nothing refers to.
    """

    versions: int = 0
    datasets: int = 0
    runs: int = 0
    artifacts: int = 0
    artifact_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    orphans: list[StoredArtifact] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged; orphans only take room."""
        return not self.damage


async def check(place: Place, progress: Progress) -> Report:
    """Reads everything that is stored, and holds it to its digests."""
    report = Report()
    stored = [found async for found in place.artifacts.list()]
    report.artifact_bytes = sum(found.size for found in stored)
    with place.engine.begin() as connection:
        for table in (versions, datasets, runs):
            count = connection.scalar(select(func.count()).select_from(table)) or 0
            setattr(report, table.name, count)
        report.damage += _of_database(connection, place.engine)
        report.damage += _of_logs(connection)
        report.damage += [
            Damage(run, "dataset", f"{dataset} is missing") for run, dataset in missing_datasets(connection)
        ]
        report.damage += _of_inline(connection)
        references = artifact_references(connection)
        unfinished = unfinished_runs(connection)
    required = [reference for reference in references if reference.required]
    found_damage = _of_artifacts(place.artifacts, required, progress)
    report.artifacts = len(required)
    if found_damage:  # what was deleted while it was looked at is no damage
        with place.engine.begin() as connection:
            still = {reference.artifact for reference in artifact_references(connection)}
        report.damage += [damage for damage in found_damage if damage.artifact in still]
    cutoff = datetime.now(UTC) - IN_FLIGHT
    report.orphans = orphans(stored, references, unfinished, cutoff)
    return report


def orphans(
    stored: list[StoredArtifact], references: list[Reference], unfinished: set[str], before: datetime
) -> list[StoredArtifact]:
    """Artifacts that nothing refers to, or is about to.

    Args:
        stored: What there is, listed before ``references`` were read.
        references: What rows name.
        unfinished: Runs that may store, under names with their ids, what rows name later.
        before: Younger ones may be about to be named.
    """
    named = {reference.artifact for reference in references}
    return [
        found
        for found in stored
        if found.name not in named
        and found.modified < before
        and run_of(found.name) not in unfinished
        and not found.name.startswith(f"{MARKS}/")
    ]


def run_of(artifact: str) -> str:
    """The id of the run that an artifact is of, by its name: ``weights/RUN.DIGEST.safetensors``."""
    return artifact.partition("/")[2].partition(".")[0].partition("/")[0]


def _of_database(connection: Connection, engine: Engine) -> Iterator[Damage]:
    if engine.dialect.name != "sqlite":
        return  # PostgreSQL checks itself, and has tools of its own
    for (line,) in connection.execute(text("PRAGMA integrity_check(20)")):
        if line != "ok":
            yield Damage("", "database", str(line))
    for table, *_ in connection.execute(text("PRAGMA foreign_key_check")):
        yield Damage("", "database", f"a row of {table} refers to one that is missing")


def _of_logs(connection: Connection) -> Iterator[Damage]:
    statement = (
        select(runs.c.run_id)
        .join_from(runs, events, runs.c.run_id == events.c.run_id, isouter=True)
        .group_by(runs.c.run_id, runs.c.latest_sequence)
        .having(
            or_(
                func.count(events.c.sequence) != runs.c.latest_sequence,
                func.coalesce(func.max(events.c.sequence), 0) != runs.c.latest_sequence,
            )
        )
    )
    for run_id in connection.scalars(statement):
        yield Damage(run_name(run_id), "log", "has gaps")


def _of_inline(connection: Connection) -> Iterator[Damage]:
    for part in inline_parts(connection):
        if part.data is None:
            yield Damage(part.owner, part.part, MISSING)
        elif digest_of(part.data) != part.digest:
            yield Damage(part.owner, part.part, CHANGED)


def _of_artifacts(artifacts: Artifacts, references: list[Reference], progress: Progress) -> list[Damage]:
    damage: list[Damage] = []
    for number, reference in enumerate(references):
        progress(number, len(references))
        problem = problem_of(artifacts, reference)
        if problem is not None:
            damage.append(Damage(reference.owner, reference.part, problem, reference.artifact))
    progress(len(references), len(references))
    return damage


def problem_of(artifacts: Artifacts, reference: Reference) -> str | None:
    """What is wrong with an artifact; None where it is as it was stored."""
    try:
        artifacts.fetch(reference.artifact, reference.digest)
    except FileNotFoundError:
        return MISSING
    except ArtifactDamagedError:
        return CHANGED
    return None
