"""Runs as rows, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from epochd_server.codec import specs as spec_codec
from epochd_server.domain.records import FIRST_CLAIM, NewRun, StoredRun
from epochd_server.domain.runs import Cancelled, EpochLog, Event, Failure, Run, RunState, Started, Succeeded
from epochd_server.domain.stopping import Wish
from epochd_server.storage.bulk import update_rows
from epochd_server.storage.schema import from_micros, runs, to_micros
from epochd_server.storage.statements import AnyRow

ADOPT = "adopt"
"""The wish that its owner go on with a run, which it has not heard of."""
BEGAN = "began"
"""Stands among a run's changes for the time at which it started, if it had not before."""
DONE = "done"
"""Stands among a run's changes for a wish that they carry out; one that came meanwhile is kept."""
_UNREAD = {"request_id", "fingerprint", "dataset", "validation_dataset"}
RUN_COLUMNS = [column for column in runs.c if column.name not in _UNREAD]

_STAND_INS = {BEGAN: runs.c.start_time, DONE: runs.c.wish}
_DONE = {RunState.PAUSED: Wish.PAUSE, RunState.QUEUED: Wish.RESUME}
"""The wishes that a new state carries out."""
_UNFINISHED = ", ".join(f"'{state.value}'" for state in RunState if not state.is_terminal)
_WHERE = (
    "runs.run_id = {of_run} AND runs.claim = {held} "
    "AND runs.latest_sequence = COALESCE({after}, runs.latest_sequence) "
    f"AND runs.state IN ({_UNFINISHED})"
)


@dataclass(frozen=True, slots=True)
class Advance:
    """What :func:`changes` says of a run that has not ended and whose newest event is ``after`` (None: any).

    Attributes:
        claim: The run's newest claim; if there is a newer one, nothing is changed.
    """

    run_id: str
    claim: int
    after: int | None
    changed: Mapping[str, Any]


def advance(connection: Connection, advances: Sequence[Advance]) -> bool:
    """Applies changes, of which each run has one at most; False where not every run is as it was said to be."""
    by_columns: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in advances:
        row = {"of_run": one.run_id, "held": one.claim, "after": one.after, **one.changed}
        by_columns.setdefault(tuple(one.changed), []).append(row)
    return all(_update(connection, names, rows) for names, rows in by_columns.items())


def _update(connection: Connection, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> bool:
    columns = {"of_run": runs.c.run_id, "held": runs.c.claim, "after": runs.c.latest_sequence}
    columns |= {name: _STAND_INS[name] if name in _STAND_INS else runs.c[name] for name in names}
    assigned = ", ".join(map(_assignment, names))
    return update_rows(connection, runs, rows, columns, assign=assigned, where=_WHERE) == len(rows)


def _assignment(column: str) -> str:
    if column == BEGAN:
        return "start_time = COALESCE(runs.start_time, {began})"
    if column == DONE:
        return "wish = NULLIF(runs.wish, {done})"
    return f"{column} = {{{column}}}"


def new_row(new: NewRun, first: Event, owner: str) -> dict[str, Any]:
    """The row of a run that was just accepted by its first owner."""
    return {
        "run_id": new.run_id,
        "state": RunState.QUEUED.value,
        "model": new.model,
        "client": new.client,
        "fingerprint": new.fingerprint,
        "dataset": new.dataset,
        "validation_dataset": new.validation_dataset,
        "spec": spec_codec.encode_spec(new.spec),
        "create_time": to_micros(new.create_time),
        "labels": dict(new.labels) or None,
        "latest_sequence": first.sequence,
        "owner": owner,
        "claim": FIRST_CLAIM,
    }


def changes(events: Sequence[Event], state: RunState | None) -> dict[str, Any]:
    """What newly logged events and a new state change in a run's row: column → value, for :class:`Advance`."""
    changed: dict[str, Any] = {}
    if events:
        changed["latest_sequence"] = events[-1].sequence
        changed |= _log_changes(events)
    if state is not None:
        changed["state"] = state.value
    if state in _DONE:
        changed[DONE] = _DONE[state].value
    if events and isinstance(events[-1].body, Succeeded | Cancelled) and events[-1].body.version:
        changed["version"] = events[-1].body.version
    if events and isinstance(events[0].body, Started):
        changed[BEGAN] = to_micros(events[0].time)
    if state is not None and state.is_terminal and events:
        changed["end_time"] = to_micros(events[-1].time)
        changed |= _failure_changes(events[-1])
    return changed


def _log_changes(events: Sequence[Event]) -> dict[str, Any]:
    """What the newest epoch changes; success tells of the last one, whether it is logged or not."""
    end = events[-1].body if events else None
    if isinstance(end, Succeeded) and not math.isnan(end.final_loss):
        return _log_changes(events[:-1]) | {"log_epoch": end.epochs - 1, "log_loss": end.final_loss}
    for event in reversed(events):
        log = event.body
        if isinstance(log, EpochLog):
            return {
                "log_epoch": log.epoch,
                "log_loss": None if math.isnan(log.loss) else log.loss,
                "log_lr": log.lr,
                "log_rows_per_second": log.rows_per_second,
            }
    return {}


def _failure_changes(event: Event) -> dict[str, Any]:
    if not isinstance(event.body, Failure):
        return {}
    failure = event.body
    return {
        "failure_reason": failure.reason,
        "failure_message": failure.message,
        "failure_hint": failure.hint,
        "failure_epoch": failure.epoch,
    }


def to_run(row: AnyRow) -> Run:
    """The run of a row that has RUN_COLUMNS."""
    return Run(
        run_id=row.run_id,
        state=RunState(row.state),
        model=row.model,
        spec=spec_codec.decode_spec(row.spec),
        create_time=from_micros(row.create_time),
        start_time=_time(row.start_time),
        end_time=_time(row.end_time),
        version=row.version,
        failure=_failure(row),
        latest_log=_latest_log(row),
        latest_sequence=row.latest_sequence,
        labels=row.labels or {},
    )


def to_stored(row: AnyRow, server: str) -> StoredRun:
    """The run of a row that has RUN_COLUMNS, as it is to a server."""
    run = to_run(row)
    is_held = row.owner == server and not run.state.is_terminal
    return StoredRun(
        run=run,
        client=row.client,
        claim=row.claim if is_held else None,
        wish=None if row.wish in (None, ADOPT) else Wish(row.wish),
        worker_deaths=row.worker_deaths,
    )


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _failure(row: AnyRow) -> Failure | None:
    if row.failure_reason is None:
        return None
    return Failure(
        reason=row.failure_reason,
        message=row.failure_message,
        hint=row.failure_hint,
        epoch=row.failure_epoch,
    )


def _latest_log(row: AnyRow) -> EpochLog | None:
    if row.log_epoch is None:
        return None
    return EpochLog(
        epoch=row.log_epoch,
        loss=math.nan if row.log_loss is None else row.log_loss,
        lr=row.log_lr,
        rows_per_second=row.log_rows_per_second,
    )
