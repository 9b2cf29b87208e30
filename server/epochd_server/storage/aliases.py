"""Aliases and their history, inside a transaction that holds the model."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select

from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.models import AliasMove, Canary
from epochd_server.domain.resources import VersionReference, version_name
from epochd_server.storage import model_rows as rows
from epochd_server.storage.schema import alias_moves, aliases, from_micros, to_micros
from epochd_server.storage.statements import AnyRow, AnySelect, insert_into

ABSENT = "absent"
"""The etag of an alias that is not there."""


def point(connection: Connection, command: AliasCommand, time: datetime) -> None:
    """Points an alias, and adds that to its history unless it points there already.

    Raises:
        EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ETAG_MISMATCH.
    """
    model, canary = command.model, command.canary
    rows.lock_version(connection, model, command.version)
    if canary is not None:
        rows.lock_version(connection, model, canary.version)
    before = _find(connection, model, command.alias)
    _check_etag(command.etag, before, model, command.alias)
    if before is not None and (before.version, rows.canary_of(before)) == (command.version, canary):
        return
    moved = _record(connection, model, command.alias, command.version, canary, time)
    row = {"model": model, "alias": command.alias, **moved}
    upsert = insert_into(connection, aliases).values(row)
    connection.execute(
        upsert.on_conflict_do_update(index_elements=[aliases.c.model, aliases.c.alias], set_=moved)
    )


def remove(connection: Connection, model: str, alias: str, etag: str | None, time: datetime) -> None:
    """Deletes an alias; its history stays.

    Raises:
        EpochdError: MODEL_NOT_FOUND, ALIAS_NOT_FOUND, ETAG_MISMATCH.
    """
    rows.require_model(connection, model, lock=True)
    before = _find(connection, model, alias)
    if before is None:
        raise rows.missing(connection, VersionReference(model, alias=alias))
    _check_etag(etag, before, model, alias)
    _record(connection, model, alias, None, None, time)
    connection.execute(delete(aliases).where(aliases.c.model == model, aliases.c.alias == alias))


def refuse_if_pointed_at(connection: Connection, model: str, version: int) -> None:
    """Raises where an alias, or its canary, is in the way of deleting a version.

    Raises:
        EpochdError: ALIAS_IN_USE, naming every alias.
    """
    at = (aliases.c.version == version) | (aliases.c.canary == version)
    pointing = select(aliases.c.alias).where(aliases.c.model == model, at).order_by(aliases.c.alias)
    found = connection.scalars(pointing).all()
    if found:
        named = ", ".join(f"@{alias}" for alias in found)
        name = version_name(model, version)
        raise EpochdError(
            Reason.ALIAS_IN_USE,
            f"{named} of {name} must be moved or deleted first.",
            {"name": name, "alias": found[0]},
        )


def page_of_moves(model: str, alias: str, limit: int, before: int | None) -> AnySelect:
    """Selects moves with numbers below ``before``, newest first."""
    page = select(alias_moves).where(alias_moves.c.model == model, alias_moves.c.alias == alias)
    if before is not None:
        page = page.where(alias_moves.c.move < before)
    return page.order_by(alias_moves.c.move.desc()).limit(limit)


def to_move(row: AnyRow) -> AliasMove:
    """The move of a row."""
    return AliasMove(
        move=row.move, version=row.version, canary=rows.canary_of(row), time=from_micros(row.time)
    )


def _find(connection: Connection, model: str, alias: str) -> AnyRow | None:
    one = select(aliases).where(aliases.c.model == model, aliases.c.alias == alias)
    return connection.execute(one).one_or_none()


def _check_etag(expected: str | None, before: AnyRow | None, model: str, alias: str) -> None:
    current = ABSENT if before is None else rows.to_alias(before).etag
    if expected not in (None, current):
        name = str(VersionReference(model, alias=alias))
        raise EpochdError(
            Reason.ETAG_MISMATCH,
            f"{name} was moved since it was read; its etag is {current!r} now.",
            {"name": name, "etag": current},
        )


def _record(
    connection: Connection,
    model: str,
    alias: str,
    version: int | None,
    canary: Canary | None,
    time: datetime,
) -> dict[str, int | None]:
    """Adds the next move to the history; returns what it makes of the alias's row."""
    newest = select(func.max(alias_moves.c.move)).where(
        alias_moves.c.model == model, alias_moves.c.alias == alias
    )
    pointing = {
        "version": version,
        "canary": None if canary is None else canary.version,
        "canary_hundredths": None if canary is None else canary.hundredths,
    }
    move, micros = (connection.scalar(newest) or 0) + 1, to_micros(time)
    row = {"model": model, "alias": alias, "move": move, "time": micros, **pointing}
    connection.execute(insert(alias_moves), row)
    return {**pointing, "move": move, "move_time": micros}
