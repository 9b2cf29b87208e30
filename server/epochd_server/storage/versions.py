"""How a trained model becomes the next version of its name, inside a transaction."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from epochd_server.codec import models as model_codec
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import TrainedModel
from epochd_server.storage import member_columns, weights
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.blobs import Blob, make_blob
from epochd_server.storage.bulk import insert_rows, upsert_rows
from epochd_server.storage.schema import models, to_micros, version_members, version_weights, versions


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


def new_identity(run_id: str) -> str:
    """An identity for a version made of what a run trained, here or elsewhere; no other version has it."""
    return f"{run_id}.{secrets.token_hex(8)}"


async def store(artifacts: Artifacts, new: NewVersion) -> None:
    """Stores a version's artifacts; they survive a power loss once this returns."""
    for name, data in new.artifacts():
        await artifacts.put(name, data)


def add(connection: Connection, model: str, new: NewVersion, labels: Labels | None = None) -> int:
    """Adds the next version of a model, and the model itself with its first; returns the version's number."""
    return add_all(connection, [(model, new, labels)])[0]


Added = tuple[str, NewVersion, Labels | None]
"""The model that gets a version, the version, and its labels."""


def add_all(connection: Connection, added: Sequence[Added]) -> list[int]:
    """Adds the next versions of models, and the models that there are not yet; returns the versions' numbers."""
    numbers = _next_numbers(connection, added)
    numbered = [(model, number, new) for (model, new, _), number in zip(added, numbers, strict=True)]
    rows = [
        _version_row(model, number, new, labels)
        for (model, new, labels), number in zip(added, numbers, strict=True)
    ]
    insert_rows(connection, versions, rows)
    inline = [
        {"model": model, "version": number, "data": new.weights.data}
        for model, number, new in numbered
        if new.weights.artifact is None
    ]
    insert_rows(connection, version_weights, inline)
    fleets = [
        _members_row(model, number, new.members) for model, number, new in numbered if new.members is not None
    ]
    insert_rows(connection, version_members, fleets)
    return numbers


def _version_row(model: str, number: int, new: NewVersion, labels: Labels | None) -> dict[str, object]:
    return {
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


def _members_row(model: str, number: int, blob: Blob) -> dict[str, object]:
    return {
        "model": model,
        "version": number,
        "digest": blob.digest,
        "artifact": blob.artifact,
        "data": blob.data if blob.artifact is None else None,
    }


def _next_numbers(connection: Connection, added: Sequence[Added]) -> list[int]:
    """Counts on from the highest numbers ever given; locks the models' rows until the commit.

    All writers lock them in the order of their names, so that none waits for another that waits for it.
    """
    counts = Counter(model for model, _, _ in added)
    times = {model: new.time for model, new, _ in added}
    rows = [
        {"model": model, "last_version": count, "create_time": times[model], "update_time": times[model]}
        for model, count in sorted(counts.items())
    ]
    found = upsert_rows(connection, models, rows, _COUNT_ON)
    following = {row.model: row.last_version - counts[row.model] + 1 for row in found}
    numbers: list[int] = []
    for model, _, _ in added:
        numbers.append(following[model])
        following[model] += 1
    return numbers


_COUNT_ON = (
    "ON CONFLICT (model) DO UPDATE SET last_version = models.last_version + excluded.last_version, "
    "update_time = excluded.update_time RETURNING model, last_version"
)
