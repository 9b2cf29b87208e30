"""Runs and their logs in the database: implements ``runs.ports.RunStore``.

Operations may be repeated with the same arguments, and then change nothing: after a lost connection nobody knows
whether a commit arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from epochd_server.codec import events as event_codec
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import LabelChange, Labels
from epochd_server.domain.models import TrainedModel
from epochd_server.domain.records import Accepted, NewRun, StoredRun
from epochd_server.domain.resources import dataset_name, run_name
from epochd_server.domain.runs import Event, Run, RunState, Succeeded
from epochd_server.storage import run_rows, versions
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.blobs import INLINE_BYTES
from epochd_server.storage.changes import ModelChanges
from epochd_server.storage.database import Database
from epochd_server.storage.failures import SequenceConflictError
from epochd_server.storage.schema import datasets, run_requests, runs
from epochd_server.storage.schema import events as event_rows
from epochd_server.storage.statements import AnyRow, AnySelect, is_inserted, labelled

_UNFINISHED = [state.value for state in RunState if not state.is_terminal]
_RESTART_TIMEOUT_S = 300.0
"""For every unfinished run with all its rows, once."""
_MODEL_AND_STATE = select(runs.c.model, runs.c.state, runs.c.labels).where(
    runs.c.run_id == bindparam("of_run")
)
_STORED: AnySelect = (
    select(*run_rows.RUN_COLUMNS, run_requests.c.request)
    .join(run_requests, run_requests.c.run_id == runs.c.run_id)
    .order_by(runs.c.run_id)
)


class EventRow(TypedDict):
    """A row of the events' table."""

    run_id: str
    sequence: int
    event: bytes


class SqlRunStore:
    """Runs on SQLite or PostgreSQL.

    Args:
        database: Holds the runs.
        artifacts: Holds weights that are too large for the database.
        changes: Told of new model versions.
    """

    def __init__(self, database: Database, artifacts: Artifacts, changes: ModelChanges) -> None:
        self._database = database
        self._artifacts = artifacts
        self._changes = changes

    async def accept(self, new: NewRun, first: Event) -> Accepted:
        """Stores a run with its first event, or finds the run with the same request_id.

        Raises:
            EpochdError: REQUEST_ID_REUSED where the fingerprints differ; DATASET_NOT_FOUND.
        """
        row = run_rows.new_row(new, first)
        request = {"run_id": new.run_id, "request": new.request}
        events = _event_rows(new.run_id, [first])

        def operation(connection: Connection) -> Accepted:
            if not is_inserted(connection, runs, row):
                return _accepted_before(connection, new)
            _require_dataset(connection, new.dataset)
            connection.execute(insert(run_requests), request)
            connection.execute(insert(event_rows), events)
            return Accepted(new.run_id, created=True)

        return await self._database.write(operation)

    async def append(self, run_id: str, events: Sequence[Event], *, state: RunState | None = None) -> None:
        """Adds events whose sequences follow the newest one, and moves the run to ``state`` if given.

        Raises:
            EpochdError: RUN_NOT_FOUND.
            SequenceConflictError: The events do not follow, or the run has ended.
        """
        rows = _event_rows(run_id, events)
        changed = run_rows.changes(events, state)

        def operation(connection: Connection) -> None:
            if not _advance(connection, run_id, rows, changed):
                return
            if rows:
                connection.execute(insert(event_rows), rows)

        if changed:
            await self._database.write(operation)

    async def succeed(
        self,
        run_id: str,
        sequence: int,
        time: datetime,
        trained: TrainedModel,
        training_seconds: float,
        before: Sequence[Event] = (),
    ) -> Event:
        """Atomically makes the next version of the run's model, ends the run and logs Succeeded; returns that event.

        Events ``before`` it, whose sequences lead up to it, are logged with it.

        Raises:
            EpochdError: RUN_NOT_FOUND.
            SequenceConflictError: The event does not follow, or the run has ended otherwise.
        """
        card = trained.card
        new = await self._prepare(run_id, time, trained)
        rows_before = _event_rows(run_id, before)

        def operation(connection: Connection) -> Event:
            run = connection.execute(_MODEL_AND_STATE, {"of_run": run_id}).one_or_none()
            if run is None:
                raise _no_run(run_id)
            if run.state == RunState.SUCCEEDED.value:
                return _succeeded_before(connection, run_id, sequence)
            number = versions.add(connection, run.model, new, run.labels)
            body = Succeeded(
                model=run.model,
                version=number,
                epochs=card.epochs,
                final_loss=card.final_loss,
                training_seconds=training_seconds,
                members=card.members,
                failed_members=card.failed_members,
                evaluation=card.evaluation,
            )
            event = Event(sequence, time, body)
            changed = run_rows.changes([*before, event], RunState.SUCCEEDED) | {"version": number}
            rows = [*rows_before, *_event_rows(run_id, [event])]
            _advance(connection, run_id, rows, changed)
            connection.execute(insert(event_rows), rows)
            return event

        event = await self._database.write(operation)
        if isinstance(event.body, Succeeded):
            self._changes.notify(event.body.model)
        return event

    async def get(self, run_id: str) -> StoredRun | None:
        """The run, or None."""
        statement = _STORED.where(runs.c.run_id == run_id)
        row = await self._database.read(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else _stored(row)

    async def find_request(self, request_id: str) -> tuple[str, bytes] | None:
        """Id and fingerprint of the run that had this request_id, or None."""
        statement = select(runs.c.run_id, runs.c.fingerprint).where(runs.c.request_id == request_id)
        row = await self._database.read(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else (row.run_id, bytes(row.fingerprint))

    async def events(self, run_id: str, after_sequence: int, limit: int) -> list[Event]:
        """At most ``limit`` events after a sequence number, in order."""
        statement = (
            select(event_rows.c.event)
            .where(event_rows.c.run_id == run_id, event_rows.c.sequence > after_sequence)
            .order_by(event_rows.c.sequence)
            .limit(limit)
        )
        found = await self._database.read(lambda connection: connection.execute(statement).scalars().all())
        return [event_codec.decode(data) for data in found]

    async def page(
        self,
        *,
        limit: int,
        before: str | None,
        states: Sequence[RunState],
        model: str | None,
        labels: Labels | None = None,
    ) -> list[Run]:
        """Runs with ids below ``before`` (ULIDs: older) and these labels, newest first.

        Their latest logs have no parameters.
        """
        statement = select(*run_rows.RUN_COLUMNS).order_by(runs.c.run_id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(runs.c.run_id < before)
        if states:
            statement = statement.where(runs.c.state.in_([state.value for state in states]))
        if model is not None:
            statement = statement.where(runs.c.model == model)
        statement = statement.where(*labelled(runs.c.labels, labels or {}))
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        return [run_rows.to_run(row) for row in rows]

    async def unfinished(self) -> list[StoredRun]:
        """Runs that have not ended, oldest first: what a restarted server goes on with."""
        statement = _STORED.where(runs.c.state.in_(_UNFINISHED))
        rows = await self._database.read(
            lambda connection: connection.execute(statement).all(), timeout_s=_RESTART_TIMEOUT_S
        )
        return [_stored(row) for row in rows]

    async def change_labels(self, run_id: str, change: LabelChange) -> Labels | None:
        """Changes the labels of a run, and returns all that it has then; None where there is no such run."""
        one = select(runs.c.labels).where(runs.c.run_id == run_id).with_for_update()

        def operation(connection: Connection) -> Labels | None:
            row = connection.execute(one).one_or_none()
            if row is None:
                return None
            changed = change.applied_to(row.labels or {})
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(labels=changed or None))
            return changed

        return await self._database.write(operation)

    async def delete(self, run_id: str) -> bool:
        """Deletes a run and its log; False where there is none.

        Raises:
            EpochdError: RUN_NOT_TERMINAL.
        """

        def operation(connection: Connection) -> bool:
            ended = delete(runs).where(runs.c.run_id == run_id, runs.c.state.not_in(_UNFINISHED))
            if connection.execute(ended).rowcount:
                return True
            if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id)) is None:
                return False
            raise EpochdError(Reason.RUN_NOT_TERMINAL, metadata={"name": run_name(run_id)})

        return await self._database.write(operation)

    async def _prepare(self, run_id: str, time: datetime, trained: TrainedModel) -> versions.NewVersion:
        size = sum(array.nbytes for array in trained.parameters.values())
        if trained.members is None and size <= INLINE_BYTES:
            new = versions.prepare(run_id, time, trained)
        else:
            new = await asyncio.to_thread(versions.prepare, run_id, time, trained)
        await versions.store(self._artifacts, new)
        return new


def _event_rows(run_id: str, events: Sequence[Event]) -> list[EventRow]:
    return [
        {"run_id": run_id, "sequence": event.sequence, "event": event_codec.encode(event)} for event in events
    ]


def _stored(row: AnyRow) -> StoredRun:
    return StoredRun(run=run_rows.to_run(row), request=bytes(row.request), client=row.client)


def _accepted_before(connection: Connection, new: NewRun) -> Accepted:
    """The run that has this request_id, or this very run when its acceptance is repeated."""
    same = or_(runs.c.run_id == new.run_id, runs.c.request_id == new.request_id)
    row = connection.execute(select(runs.c.run_id, runs.c.fingerprint).where(same)).one()
    if bytes(row.fingerprint) != new.fingerprint:
        metadata = {"request_id": new.request_id or "", "name": run_name(row.run_id)}
        raise EpochdError(Reason.REQUEST_ID_REUSED, metadata=metadata)
    return Accepted(row.run_id, created=row.run_id == new.run_id)


def _require_dataset(connection: Connection, digest: str | None) -> None:
    """Makes sure that the dataset is there, and stays until this transaction ends."""
    if digest is None:
        return
    held = select(datasets.c.digest).where(datasets.c.digest == digest).with_for_update(read=True)
    if connection.scalar(held) is None:
        raise EpochdError(Reason.DATASET_NOT_FOUND, metadata={"name": dataset_name(digest)})


def _advance(
    connection: Connection, run_id: str, events: Sequence[EventRow], changed: Mapping[str, Any]
) -> bool:
    """Changes the run's row if the events follow its newest; False where they are stored already."""
    after = events[0]["sequence"] - 1 if events else None
    if run_rows.advance(connection, run_id, after, changed):
        return True
    if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id)) is None:
        raise _no_run(run_id)
    if events and _are_stored(connection, run_id, events):
        return False
    raise SequenceConflictError(f"run {run_id} has ended, or its log does not end where these events begin")


def _are_stored(connection: Connection, run_id: str, events: Sequence[EventRow]) -> bool:
    same = select(event_rows.c.event).where(
        event_rows.c.run_id == run_id,
        event_rows.c.sequence.between(events[0]["sequence"], events[-1]["sequence"]),
    )
    stored = connection.execute(same.order_by(event_rows.c.sequence)).scalars()
    return [bytes(data) for data in stored] == [row["event"] for row in events]


def _succeeded_before(connection: Connection, run_id: str, sequence: int) -> Event:
    one = select(event_rows.c.event).where(event_rows.c.run_id == run_id, event_rows.c.sequence == sequence)
    data = connection.scalar(one)
    event = None if data is None else event_codec.decode(data)
    if event is None or not isinstance(event.body, Succeeded):
        raise SequenceConflictError(f"run {run_id} has succeeded before, with another event")
    return event


def _no_run(run_id: str) -> EpochdError:
    return EpochdError(Reason.RUN_NOT_FOUND, metadata={"name": run_name(run_id)})
