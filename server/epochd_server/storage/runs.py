"""Runs and their logs in the database: implements ``runs.ports.RunStore``.

Operations may be repeated with the same arguments, and then change nothing: after a lost connection nobody knows
whether a commit arrived.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, select, update

from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import LabelChange, Labels
from epochd_server.domain.models import TrainedModel
from epochd_server.domain.once import AskedOnce, Once
from epochd_server.domain.records import Accepted, Append, NewRun, NoticeKind, RunWrite, StoredRun
from epochd_server.domain.resources import run_name
from epochd_server.domain.runs import Cancelled, Event, Run, RunState, Succeeded
from epochd_server.storage import run_rows, versions
from epochd_server.storage.answers import Answers
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.blobs import INLINE_BYTES
from epochd_server.storage.changes import ModelChanges
from epochd_server.storage.database import Database
from epochd_server.storage.run_writes import Acceptance, Entry, accept_all, made_run, no_run, record_all
from epochd_server.storage.schema import events as event_rows
from epochd_server.storage.schema import run_requests, runs
from epochd_server.storage.statements import labelled
from epochd_server.storage.writer import Failed

_UNFINISHED = [state.value for state in RunState if not state.is_terminal]


class SqlRunStore:
    """Runs on SQLite or PostgreSQL.

    Args:
        database: Holds the runs.
        artifacts: Holds weights that are too large for the database.
        changes: Told of new model versions.
        answers: Remembers what requests were answered.
    """

    def __init__(
        self, database: Database, artifacts: Artifacts, changes: ModelChanges, answers: Answers
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._changes = changes
        self._answers = answers

    async def accept(self, new: NewRun, first: Event) -> Accepted:
        """Stores a run with its first event, or finds the run with the same request_id.

        Raises:
            EpochdError: REQUEST_ID_REUSED where the request was another; DATASET_NOT_FOUND.
        """
        acceptance = Acceptance.of(new, first, self._database.server, self._answers)
        (accepted,) = await self._database.write_each(accept_all, [acceptance])
        if isinstance(accepted, Failed):
            raise accepted.error
        return accepted

    async def record(self, writes: Sequence[RunWrite]) -> list[Event | Exception | None]:
        """Adds to the logs of runs.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE: nobody knows which writes were made.

        Returns:
            For each write the run's last event if it succeeded, or why it could not be made: RUN_NOT_FOUND, a
            ClaimLostError, or a SequenceConflictError where the events do not follow, or the run has ended otherwise.
        """
        entries = [await self._entry(write) for write in writes]
        results = [_told(result) for result in await self._database.write_each(self._record_all, entries)]
        for result in results:
            if isinstance(result, Event) and isinstance(result.body, Succeeded | Cancelled):
                self._changes.notify(result.body.model)
        return results

    async def get(self, run_id: str) -> StoredRun | None:
        """The run, or None."""
        statement = select(*run_rows.RUN_COLUMNS).where(runs.c.run_id == run_id)
        row = await self._database.read(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else run_rows.to_stored(row, self._database.server)

    async def request(self, run_id: str) -> bytes | None:
        """The request that a run was accepted with, data included; None where there is no such run."""
        statement = select(run_requests.c.request).where(run_requests.c.run_id == run_id)
        data = await self._database.read(lambda connection: connection.scalar(statement))
        return None if data is None else bytes(data)

    async def find_made(self, asked: AskedOnce) -> str | None:
        """The id of the run that the same request made before, or None.

        Raises:
            EpochdError: REQUEST_ID_REUSED.
        """
        answer = await self._answers.find(asked)
        return None if answer is None else made_run(answer)

    async def events(
        self, run_id: str, after_sequence: int, limit: int, nbytes: int | None = None
    ) -> EventPage:
        """At most ``limit`` events after a sequence number, of about ``nbytes`` at most, but at least one."""

        def read(connection: Connection) -> Sequence[bytes]:
            fitting = limit
            if nbytes is not None:  # a database knows a value's length without reading it
                sizes = connection.execute(wanted(func.length(event_rows.c.event), limit)).scalars()
                sums = itertools.accumulate(sizes)
                fitting = max(1, sum(total <= nbytes for total in sums))
            return connection.execute(wanted(event_rows.c.event, fitting)).scalars().all()

        def wanted(column: ColumnElement[Any], count: int) -> Select[Any]:
            after = (event_rows.c.run_id == run_id, event_rows.c.sequence > after_sequence)
            return select(column).where(*after).order_by(event_rows.c.sequence).limit(count)

        return EventPage(after_sequence + 1, list(map(bytes, await self._database.read(read))))

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

    async def note_worker_deaths(self, run_id: str, claim: int, deaths: int) -> None:
        """Notes how many workers have died while they trained a run, unless its claim is lost."""
        mine = (runs.c.run_id == run_id, runs.c.claim == claim)
        noted = update(runs).where(*mine).values(worker_deaths=deaths)
        await self._database.write(lambda connection: connection.execute(noted))

    async def change_labels(self, run_id: str, change: LabelChange, once: Once[Run] | None = None) -> Run:
        """Changes the labels of a run, and returns it.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
            InvalidInput: They are too many.
        """
        one = select(*run_rows.RUN_COLUMNS).where(runs.c.run_id == run_id).with_for_update()

        def operation(connection: Connection) -> Run:
            row = connection.execute(one).one_or_none()
            if row is None:
                raise no_run(run_id)
            run = run_rows.to_run(row)
            changed = change.applied_to(run.labels)
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(labels=changed or None))
            return replace(run, labels=changed)

        return await self._answers.write(operation, once)

    async def delete(self, run_id: str, once: Once[object] | None = None) -> None:
        """Deletes a run and its log.

        Raises:
            EpochdError: RUN_NOT_FOUND, RUN_NOT_TERMINAL, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

        def operation(connection: Connection) -> None:
            ended = delete(runs).where(runs.c.run_id == run_id, runs.c.state.not_in(_UNFINISHED))
            if connection.execute(ended).rowcount:
                return
            if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id)) is None:
                raise no_run(run_id)
            message = f"{run_name(run_id)} has not ended yet; cancel it first."
            raise EpochdError(Reason.RUN_NOT_TERMINAL, message, {"name": run_name(run_id)})

        await self._answers.write(operation, once)

    def _record_all(self, connection: Connection, entries: Sequence[Entry]) -> list[Event | None]:
        """Adds to the logs of runs, and tells other servers, which may have clients that watch."""
        ends = record_all(connection, entries)
        notices = self._database.notices
        if notices.has_listeners:
            notices.tell(connection, NoticeKind.LOGGED, list({entry.run_id for entry in entries}))
            models = {end.body.model for end in ends if end and isinstance(end.body, Succeeded | Cancelled)}
            if models:
                notices.tell(connection, NoticeKind.CHANGED, sorted(models))
        return ends

    async def _entry(self, write: RunWrite) -> Entry:
        if isinstance(write, Append):
            return Entry(write, EventPage.of(write.events) if write.events else None)
        new = await self._prepare(write.run_id, write.time, write.trained)
        return Entry(write, EventPage.of(write.before) if write.before else None, new)

    async def _prepare(self, run_id: str, time: datetime, trained: TrainedModel) -> versions.NewVersion:
        size = sum(array.nbytes for array in trained.parameters.values())
        if trained.members is None and size <= INLINE_BYTES:
            new = versions.prepare(run_id, time, trained)
        else:
            new = await asyncio.to_thread(versions.prepare, run_id, time, trained)
        await versions.store(self._artifacts, new)
        return new


def _told(result: Event | Failed | None) -> Event | Exception | None:
    """A result as callers get it.

    Raises:
        EpochdError: STORAGE_UNAVAILABLE.
    """
    if not isinstance(result, Failed):
        return result
    if isinstance(result.error, EpochdError) and result.error.reason is Reason.STORAGE_UNAVAILABLE:
        raise result.error
    return result.error
