"""Runs as they are handed to storage and come back from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from epochd_server.domain.labels import Labels
from epochd_server.domain.runs import Run
from epochd_server.domain.specs import TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be accepted.

    Attributes:
        run_id: A new ULID.
        model: The model's id.
        spec: What is trained, every size resolved.
        request: The serialised TrainRequest, data included: all that is needed to train it again after a crash.
        request_id: The client's id for this request, or None.
        fingerprint: SHA-256 of what the client sent (without request_id): a repeated request_id must match it.
        client: Whose share of the workers it takes.
        dataset: Digest of the dataset it reads, or None.
        labels: Of the run, and of the version that it makes.
    """

    run_id: str
    model: str
    spec: TrainingSpec
    request: bytes
    request_id: str | None
    fingerprint: bytes
    client: str
    create_time: datetime
    dataset: str | None = None
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as stored, with what only the server needs."""

    run: Run
    request: bytes
    client: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a NewRun: the run's id, and whether it is new or the one that had the request_id before."""

    run_id: str
    created: bool
