"""Runs as they are handed to storage and come back from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from epochd_server.domain.labels import Labels
from epochd_server.domain.models import TrainedModel
from epochd_server.domain.runs import Event, Run, RunState
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Events to be added to a run's log, and the state that they bring.

    Attributes:
        events: Their sequences follow the newest one.
        state: Where the run goes, or None where it stays.
    """

    run_id: str
    events: Sequence[Event]
    state: RunState | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Success:
    """A run's end with a model version.

    Attributes:
        sequence: Of the event Succeeded.
        time: When it succeeded.
        trained: The model.
        before: Events that lead up to it, logged with it.
    """

    run_id: str
    sequence: int
    time: datetime
    trained: TrainedModel
    training_seconds: float
    before: Sequence[Event] = ()


RunWrite = Append | Success
