"""Writing runs and their logs, many at once: a thousand strangers are accepted, logged and ended by few statements.

If one of many cannot be written as expected, :class:`EachAloneError` undoes them all and each is written alone; only
then is it found out whether it was written before, or what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, select

from epochd_server.codec.events import decode
from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.once import AnsweredBefore
from epochd_server.domain.records import Accepted, Append, ClaimLostError, NewRun, Success
from epochd_server.domain.resources import dataset_name, parse_run, run_name
from epochd_server.domain.runs import Cancelled, Event, RunState, Succeeded
from epochd_server.storage import run_rows, versions
from epochd_server.storage.answers import Answer, Answers, claim, claim_all
from epochd_server.storage.bulk import insert_new_rows, insert_rows
from epochd_server.storage.failures import SequenceConflictError
from epochd_server.storage.schema import datasets, run_requests, runs
from epochd_server.storage.schema import events as event_rows
from epochd_server.storage.statements import AnyRow

T = TypeVar("T")

_MODEL_AND_STATE = select(runs.c.run_id, runs.c.model, runs.c.state, runs.c.labels, runs.c.claim).where(
    runs.c.run_id.in_(bindparam("run_ids", expanding=True))
)


class EachAloneError(Exception):
    """Not all of many could be written together."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A run to be accepted, as rows.

    Attributes:
        answer: What is remembered of it under its request_id: its name.
    """

    new: NewRun
    row: dict[str, Any]
    events: EventPage
    answer: Answer | None

    @classmethod
    def of(cls, new: NewRun, first: Event, owner: str, answers: Answers) -> Acceptance:
        """The rows of a new run."""
        answer = None if new.asked is None else answers.make(new.asked, run_name(new.run_id).encode())
        return cls(new, run_rows.new_row(new, first, owner), EventPage.of([first]), answer)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to be added to a run's log.

    Attributes:
        write: What.
        events: Its events; of a success those before the last.
        version: Of a success: the new version.
    """

    write: Append | Success
    events: EventPage | None
    version: versions.NewVersion | None = None

    @property
    def run_id(self) -> str:
        """The run."""
        return self.write.run_id


def accept_all(connection: Connection, acceptances: Sequence[Acceptance]) -> list[Accepted]:
    """Stores runs with their first events, or finds those that have their request_ids.

    Raises:
        EpochdError: REQUEST_ID_REUSED, DATASET_NOT_FOUND.
    """
    answers = [one.answer for one in acceptances if one.answer is not None]
    if not claim_all(connection, answers) and (before := _accepted_before(connection, _only(acceptances))):
        return [before]
    if insert_new_rows(connection, runs, [one.row for one in acceptances]) < len(acceptances):
        return [Accepted(_only(acceptances).new.run_id, created=True)]  # this very acceptance, repeated
    for digest in sorted({digest for one in acceptances for digest in one.new.datasets}):
        _require_dataset(connection, digest)
    requests = [{"run_id": one.new.run_id, "request": one.new.request} for one in acceptances]
    insert_rows(connection, run_requests, requests)
    _insert_events(connection, [(one.new.run_id, one.events) for one in acceptances])
    return [Accepted(one.new.run_id, created=True) for one in acceptances]


def record_all(connection: Connection, entries: Sequence[Entry]) -> list[Event | None]:
    """Adds to the logs of runs; the last events of those that succeeded, None for others.

    Raises:
        EpochdError: RUN_NOT_FOUND.
        ClaimLostError: Another server has claimed the run.
        SequenceConflictError: The events do not follow, or the run has ended.
    """
    found = _find(connection, [entry.run_id for entry in entries if entry.version is not None])
    if any(entry.version is not None and not _is_unfinished(found.get(entry.run_id)) for entry in entries):
        entry = _only(entries)
        return [_succeeded_before(connection, entry, found.get(entry.run_id))]
    ends = _make_versions(connection, entries, found)
    logged = [
        (entry.run_id, EventPage.ending(entry.events, end)) for entry, end in zip(entries, ends, strict=True)
    ]
    advances = [_advance(entry, page) for entry, (_, page) in zip(entries, logged, strict=True)]
    if run_rows.advance(connection, advances):
        _insert_events(connection, logged)
    else:
        _require_stored(connection, _only(entries), logged[0][1])
    return ends


def _only(items: Sequence[T]) -> T:
    if len(items) > 1:
        raise EachAloneError
    return items[0]


def _insert_events(connection: Connection, logged: Iterable[tuple[str, EventPage | None]]) -> None:
    rows = [
        {"run_id": run_id, "sequence": sequence, "event": message}
        for run_id, page in logged
        if page is not None
        for sequence, message in enumerate(page.messages, page.first)
    ]
    insert_rows(connection, event_rows, rows)


def _accepted_before(connection: Connection, acceptance: Acceptance) -> Accepted | None:
    """The run that its request made; this very one when its acceptance is repeated, None once that is forgotten."""
    if acceptance.answer is None:
        return None
    try:
        claim(connection, acceptance.answer)
    except AnsweredBefore as before:
        run_id = made_run(before.answer)
        return Accepted(run_id, created=run_id == acceptance.new.run_id)
    return None


def made_run(answer: bytes) -> str:
    """The id of the run that a request made, of what is remembered as its answer.

    Raises:
        EpochdError: RUN_NOT_FOUND where that is no run's name.
    """
    run_id = parse_run(answer.decode())
    if run_id is None:
        raise EpochdError(Reason.RUN_NOT_FOUND)
    return run_id


def _require_dataset(connection: Connection, digest: str) -> None:
    """Makes sure that the dataset is there, and stays until this transaction ends."""
    held = select(datasets.c.digest).where(datasets.c.digest == digest).with_for_update(read=True)
    if connection.scalar(held) is None:
        raise EpochdError(Reason.DATASET_NOT_FOUND, metadata={"name": dataset_name(digest)})


def _find(connection: Connection, run_ids: Sequence[str]) -> dict[str, AnyRow]:
    """Model, state, labels and claim of runs, by id."""
    if not run_ids:
        return {}
    return {row.run_id: row for row in connection.execute(_MODEL_AND_STATE, {"run_ids": run_ids})}


def _is_unfinished(row: AnyRow | None) -> bool:
    return row is not None and not RunState(row.state).is_terminal


def _make_versions(
    connection: Connection, entries: Sequence[Entry], found: Mapping[str, AnyRow]
) -> list[Event | None]:
    """Makes the versions of those that succeeded; their last events, None for others."""
    new = [
        (found[entry.run_id].model, entry.version, found[entry.run_id].labels)
        for entry in entries
        if entry.version is not None
    ]
    numbers = zip(new, versions.add_all(connection, new) if new else (), strict=True)
    ends: list[Event | None] = []
    for entry in entries:
        if isinstance(entry.write, Success):
            (model, _, _), number = next(numbers)
            ends.append(_end(entry.write, model, number))
        else:
            ends.append(None)
    return ends


def _end(success: Success, model: str, version: int) -> Event:
    if success.cancelled is not None:
        kept = replace(success.cancelled, model=model, version=version)
        return Event(success.sequence, success.time, kept)
    card = success.trained.card
    body = Succeeded(
        model=model,
        version=version,
        epochs=card.epochs,
        final_loss=card.final_loss,
        training_seconds=success.training_seconds,
        members=card.members,
        failed_members=card.failed_members,
        evaluation=card.evaluation,
    )
    return Event(success.sequence, success.time, body)


def _advance(entry: Entry, page: EventPage | None) -> run_rows.Advance:
    write = entry.write
    if isinstance(write, Append):
        state = write.state
    else:
        state = RunState.SUCCEEDED if write.cancelled is None else RunState.CANCELLED
    after = None if page is None else page.first - 1
    return run_rows.Advance(entry.run_id, entry.write.claim, after, run_rows.changes(page or (), state))


def _require_stored(connection: Connection, entry: Entry, page: EventPage | None) -> None:
    """Makes sure that events which do not follow are in the log already.

    Raises:
        EpochdError: RUN_NOT_FOUND.
        ClaimLostError: Another server has claimed the run.
        SequenceConflictError: They are not.
    """
    run_id = entry.run_id
    _require_claim(entry, connection.scalar(select(runs.c.claim).where(runs.c.run_id == run_id)))
    if page is not None and _stored(connection, run_id, page) == list(page.messages):
        return
    raise SequenceConflictError(f"run {run_id} has ended, or its log does not end where these events begin")


def _require_claim(entry: Entry, newest: int | None) -> None:
    """Makes sure that a run is there and its newest claim is that of an entry."""
    if newest is None:
        raise no_run(entry.run_id)
    if newest != entry.write.claim:
        raise ClaimLostError(f"run {entry.run_id} was claimed by another server")


def _stored(connection: Connection, run_id: str, page: EventPage) -> list[bytes]:
    same = select(event_rows.c.event).where(
        event_rows.c.run_id == run_id, event_rows.c.sequence.between(page.first, page.last)
    )
    return [bytes(data) for data in connection.execute(same.order_by(event_rows.c.sequence)).scalars()]


def _succeeded_before(connection: Connection, entry: Entry, row: AnyRow | None) -> Event:
    """The last event of a run whose version is written a second time."""
    _require_claim(entry, None if row is None else row.claim)
    sequence = entry.write.sequence if isinstance(entry.write, Success) else 0
    one = select(event_rows.c.event).where(
        event_rows.c.run_id == entry.run_id, event_rows.c.sequence == sequence
    )
    data = connection.scalar(one)
    event = None if data is None else decode(bytes(data))
    if event is None or not (isinstance(event.body, Succeeded | Cancelled) and event.body.version):
        raise SequenceConflictError(f"run {entry.run_id} has ended before, with another event")
    return event


def no_run(run_id: str) -> EpochdError:
    """RUN_NOT_FOUND, naming it."""
    return EpochdError(Reason.RUN_NOT_FOUND, metadata={"name": run_name(run_id)})
