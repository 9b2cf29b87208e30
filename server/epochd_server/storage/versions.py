"""How a trained model becomes the next version of its name, inside a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from epochd_server.codec import models as model_codec
from epochd_server.domain.models import TrainedModel
from epochd_server.storage import weights
from epochd_server.storage.schema import models, to_micros, version_weights, versions
from epochd_server.storage.statements import Insert, is_postgresql


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version that only lacks its number.

    Attributes:
        run_id: The run that trained it.
        time: Microseconds since 1970.
        card: The encoded VersionCard.
        data: The weights' safetensors bytes.
        digest: Their SHA-256 in hex.
        artifact: Where ``data`` must lie before :func:`add`; None: in the database.
    """

    run_id: str
    time: int
    card: bytes
    data: bytes
    digest: str
    artifact: str | None


def prepare(run_id: str, time: datetime, trained: TrainedModel) -> NewVersion:
    """Encodes a trained model."""
    data = weights.pack(trained.parameters)
    digest = weights.digest_of(data)
    return NewVersion(
        run_id=run_id,
        time=to_micros(time),
        card=model_codec.encode_card(trained.card),
        data=data,
        digest=digest,
        artifact=weights.artifact_name(run_id, digest) if len(data) > weights.INLINE_BYTES else None,
    )


def add(connection: Connection, model: str, new: NewVersion) -> int:
    """Adds the next version of a model, and the model itself with its first; returns the version's number."""
    number = _next_number(connection, model, new.time)
    row = {
        "model": model,
        "version": number,
        "run_id": new.run_id,
        "create_time": new.time,
        "card": new.card,
        "weights_digest": new.digest,
        "weights_size": len(new.data),
        "weights_artifact": new.artifact,
    }
    connection.execute(insert(versions), row)
    if new.artifact is None:
        inline = {"model": model, "version": number, "data": new.data}
        connection.execute(insert(version_weights), inline)
    return number


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
