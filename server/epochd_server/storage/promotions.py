"""How a member of a fleet, or a file, becomes a version once, however often that is asked for."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select, update

from epochd_server.domain.commands import ImportCommand, PromoteCommand
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.resources import VersionReference, version_name
from epochd_server.storage import model_rows as rows
from epochd_server.storage import versions
from epochd_server.storage.schema import promotions
from epochd_server.storage.statements import is_inserted


def new_identity(run_id: str) -> str:
    """An identity for a version made of what a run trained, here or elsewhere; no other version has it."""
    return f"{run_id}.{secrets.token_hex(8)}"


def find(connection: Connection, command: PromoteCommand | ImportCommand) -> ModelVersion | None:
    """The version that this request made before, or None.

    Raises:
        EpochdError: REQUEST_ID_REUSED.
    """
    if command.request_id is None:
        return None
    row = connection.execute(
        select(promotions).where(promotions.c.request_id == command.request_id)
    ).one_or_none()
    if row is None:
        return None
    if bytes(row.fingerprint) != command.fingerprint:
        metadata = {"request_id": command.request_id, "name": version_name(row.model, row.version)}
        raise EpochdError(Reason.REQUEST_ID_REUSED, metadata=metadata)
    return _version(connection, row.model, row.version)


def add(
    connection: Connection,
    model: str,
    command: PromoteCommand | ImportCommand,
    new: versions.NewVersion,
    labels: Labels | None = None,
) -> tuple[ModelVersion, bool]:
    """Adds the version, or finds the one that another writer made meanwhile; says whether it was added.

    Raises:
        EpochdError: REQUEST_ID_REUSED.
    """
    if command.request_id is not None:
        row = {"request_id": command.request_id, "fingerprint": command.fingerprint, "model": model}
        # Waits for whoever is about to commit the same request_id.
        if not is_inserted(connection, promotions, row) and (before := find(connection, command)):
            return before, False
    number = versions.add(connection, model, new, labels)
    if command.request_id is not None:
        made = update(promotions).where(promotions.c.request_id == command.request_id)
        connection.execute(made.values(version=number))
    return _version(connection, model, number), True


def _version(connection: Connection, model: str, version: int) -> ModelVersion:
    return rows.to_version(connection.execute(rows.meant(VersionReference(model, version))).one())
