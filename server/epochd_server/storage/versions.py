"""How a trained model becomes the next version of its name, inside a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from epochd_server.codec import models as model_codec
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import TrainedModel
from epochd_server.storage import member_columns, weights
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.blobs import Blob, make_blob
from epochd_server.storage.schema import models, to_micros, version_members, version_weights, versions
from epochd_server.storage.statements import Insert, is_postgresql


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version that only lacks its number.

    Attributes:
        identity: The id of the run that trained it, or another that no version ever had.
        time: Microseconds since 1970.
        card: The encoded VersionCard.
        weights: The safetensors bytes.
        members: Fleets: the members' columns.
    """

    identity: str
    time: int
    card: bytes
    weights: Blob
    members: Blob | None

    def artifacts(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the artifacts that must be stored before :func:`add`."""
        for blob in (self.weights, self.members):
            if blob is not None and blob.artifact is not None:
                yield blob.artifact, blob.data


def prepare(identity: str, time: datetime, trained: TrainedModel) -> NewVersion:
    """Encodes a trained model."""
    members = trained.members
    return NewVersion(
        identity=identity,
        time=to_micros(time),
        card=model_codec.encode_card(trained.card),
        weights=make_blob(identity, weights.pack(trained.parameters), suffix="safetensors"),
        members=None
        if members is None
        else make_blob(identity, member_columns.pack(members), suffix="members.arrow"),
    )


async def store(artifacts: Artifacts, new: NewVersion) -> None:
    """Stores a version's artifacts; they survive a power loss once this returns."""
    for name, data in new.artifacts():
        await artifacts.put(name, data)


def add(connection: Connection, model: str, new: NewVersion, labels: Labels | None = None) -> int:
    """Adds the next version of a model, and the model itself with its first; returns the version's number."""
    number = _next_number(connection, model, new.time)
    row = {
        "model": model,
        "version": number,
        "run_id": new.identity,
        "create_time": new.time,
        "card": new.card,
        "weights_digest": new.weights.digest,
        "weights_size": len(new.weights.data),
        "weights_artifact": new.weights.artifact,
        "labels": labels or None,
    }
    connection.execute(insert(versions), row)
    if new.weights.artifact is None:
        inline = {"model": model, "version": number, "data": new.weights.data}
        connection.execute(insert(version_weights), inline)
    if new.members is not None:
        connection.execute(insert(version_members), _members_row(model, number, new.members))
    return number


def _members_row(model: str, number: int, blob: Blob) -> dict[str, object]:
    return {
        "model": model,
        "version": number,
        "digest": blob.digest,
        "artifact": blob.artifact,
        "data": blob.data if blob.artifact is None else None,
    }


def _next_number(connection: Connection, model: str, time: int) -> int:
    """Counts on from the highest number ever given; locks the model's row until the commit."""
    first = {"model": model, "last_version": 1, "create_time": time, "update_time": time}
    statement = _COUNT_IN_POSTGRESQL if is_postgresql(connection) else _COUNT_IN_SQLITE
    return int(connection.execute(statement, first).scalar_one())


def _counting(insertion: Insert) -> ReturningInsert[int]:
    following = {"last_version": models.c.last_version + 1, "update_time": insertion.excluded.update_time}
    counted = insertion.on_conflict_do_update(index_elements=[models.c.model], set_=following)
    return counted.returning(models.c.last_version)


_COUNT_IN_POSTGRESQL = _counting(postgresql.insert(models))
_COUNT_IN_SQLITE = _counting(sqlite.insert(models))
