"""Runs as they are handed to storage and come back from it.

Servers that share a store divide its unfinished runs by *claims*. Every claim of a run has a number of its own, larger
than those before; a write names the claim by which its server has the run, and is refused once there is a newer one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from epochd_server.domain.checkpoints import Checkpoint
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import TrainedModel
from epochd_server.domain.once import AskedOnce
from epochd_server.domain.runs import Cancelled, Event, Run, RunState
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.stopping import Wish

FIRST_CLAIM = 1
"""The claim of the server that accepts a run."""


class ClaimLostError(Exception):
    """Another server has claimed the run meanwhile; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be accepted.

    Attributes:
        run_id: A new ULID.
        model: The model's id.
        spec: What is trained, every size resolved.
        request: The serialised TrainRequest, data included: all that is needed to train it again after a crash.
        asked: The request as it is remembered under its request_id, or None where it has none.
        fingerprint: SHA-256 of what the client sent (without request_id).
        client: Whose share of the workers it takes.
        dataset: Digest of the dataset it reads, or None.
        validation_dataset: That of the one with the held-out rows.
        labels: Of the run, and of the version that it makes.
    """

    run_id: str
    model: str
    spec: TrainingSpec
    request: bytes
    asked: AskedOnce | None = None
    fingerprint: bytes
    client: str
    create_time: datetime
    dataset: str | None = None
    validation_dataset: str | None = None
    labels: Labels = field(default_factory=dict)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Digests of all datasets that it reads."""
        return tuple(digest for digest in (self.dataset, self.validation_dataset) if digest is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as stored, with what only the server needs.

    Attributes:
        claim: By which this server has the run; None where it has ended, or is not this server's.
        wish: What a client asked for that was not done yet.
        worker_deaths: How many workers died while they trained it.
    """

    run: Run
    client: str
    claim: int | None
    wish: Wish | None = None
    worker_deaths: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedCheckpoint:
    """Where a run is, to be kept.

    Attributes:
        claim: By which its server has the run.
    """

    run_id: str
    claim: int
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """Where a run was when it was saved last.

    Attributes:
        checkpoint: None where it was never saved, or no checkpoint can be used.
        damaged: How many newer ones cannot be read.
    """

    checkpoint: Checkpoint | None
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a NewRun: the run's id, and whether it is new or the one that had the request_id before."""

    run_id: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Events to be added to a run's log, and the state that they bring.

    Attributes:
        claim: By which its server has the run.
        events: Their sequences follow the newest one.
        state: Where the run goes, or None where it stays.
    """

    run_id: str
    claim: int
    events: Sequence[Event]
    state: RunState | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Success:
    """A run's end with a model version.

    Attributes:
        claim: By which its server has the run.
        sequence: Of the event Succeeded.
        time: When it succeeded.
        trained: The model.
        before: Events that lead up to it, logged with it.
        cancelled: Of a run that was cancelled and keeps what it had reached: how it ends instead of Succeeded.
    """

    run_id: str
    claim: int
    sequence: int
    time: datetime
    trained: TrainedModel
    training_seconds: float
    before: Sequence[Event] = ()
    cancelled: Cancelled | None = None


RunWrite = Append | Success


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a server learns when it renews its claims.

    Attributes:
        late: Whether it was silent for so long that others may have taken its runs.
        missed: Whether another server is silent, or has ended.
        newest: Of the runs that it asked about: the sequences of their newest events. Deleted ones are missing.
    """

    late: bool
    missed: bool
    newest: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What others ask of a server.

    Attributes:
        wishes: What clients want of its runs.
        given: Those of its runs that another server gave it.
    """

    wishes: Mapping[str, Wish]
    given: Sequence[str]


class NoticeKind(enum.Enum):
    """What servers that share a store tell each other."""

    LOGGED = "logged"
    """Events were added to the logs of these runs."""

    WISHED = "wished"
    """Clients asked something of these runs' owners."""

    FREED = "freed"
    """Runs have no owner any more, or another one."""

    IDLE = "idle"
    """A server has nothing to train: its name, and how many cohorts it could train at once."""

    CHANGED = "changed"
    """These models have new versions, lost some, or had aliases moved."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that another server did; names are ids of runs or of models, or as the kind says."""

    kind: NoticeKind
    names: tuple[str, ...]
