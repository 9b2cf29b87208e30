"""Runs and the entries of their logs."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import Classes
from epochd_server.domain.fleets import Key
from epochd_server.domain.lineage import Lineage
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.validation import Evaluation, Metric


class RunState(enum.Enum):
    """QUEUED → RUNNING → SUCCEEDED | FAILED | CANCELLED; a queued run may also be cancelled or fail.

    QUEUED | RUNNING → PAUSED → QUEUED; a paused run may also be cancelled.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self in _TERMINAL


_TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})

Parameters = Mapping[str, NDArray[np.floating]]
"""Parameters by PyTorch's names, in PyTorch's order and shapes."""

Quantiles = tuple[float, float, float, float, float]
"""Minimum, quartiles and maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The run was accepted and is stored."""

    run_id: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Training began; everything the request left open is resolved.

    Attributes:
        spec: The training with every size filled in.
        parameters: Number of trainable parameters.
        rows: Number of rows trained on.
        device: Where it runs, such as ``cpu``.
    """

    spec: TrainingSpec
    parameters: int
    rows: int
    feature_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    classes: Classes | None
    device: str
    members: int = 0
    """Fleets: the number of members; 0 for a single model."""
    key_columns: tuple[str, ...] = ()
    weight_column: str | None = None
    lineage: Lineage | None = None
    """Where the model will come from; None in logs of servers that did not keep it."""
    preprocess: FittedPreprocessing | None = None
    """What columns go through to become ``feature_columns``; None where they are those themselves."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochLog:
    """One epoch.

    Attributes:
        epoch: As in ``for epoch in range(epochs)``.
        loss: Mean loss before the epoch's update; with mini-batches the mean over the batches as they came.
        lr: The epoch's learning rate.
        rows_per_second: Rows trained a second since the log before; 0 if not known.
        parameters: After the epoch's update, if asked for.
        validation_loss: On the held-out rows after the epoch's update; None where there are none.
        metrics: On the held-out rows after the epoch's update.
    """

    epoch: int
    loss: float
    lr: float
    rows_per_second: float = 0.0
    parameters: Parameters | None = None
    validation_loss: float | None = None
    metrics: tuple[tuple[Metric, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something a user should know of; the run goes on."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The run ended with a model version."""

    model: str
    version: int
    epochs: int
    final_loss: float
    """Of the last epoch, before its update; the median over the trained members of a fleet."""
    training_seconds: float
    members: int = 0
    """Fleets: the number of members; 0 for a single model."""
    failed_members: int = 0
    evaluation: Evaluation | None = None
    """On the held-out rows; None where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run has no model version; the run's last event.

    Attributes:
        reason: UPPER_SNAKE, such as ``LOSS_NOT_FINITE``, ``WORKER_DIED``, ``MODULE_FAILED``.
    """

    reason: str
    message: str
    hint: str = ""
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The run was cancelled after so many epochs; its last event.

    Attributes:
        reason: UPPER_SNAKE where no client asked for it: a limit of the run was reached.
        model: The model of the version that keeps what it had reached; "" where nothing was kept.
        version: That version; 0 where nothing was kept.
    """

    epochs: int
    reason: str = ""
    model: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The run was paused after so many epochs; it keeps its place until it is resumed."""

    epochs: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run waits for a worker again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProgress:
    """Where a fleet's training is; see the proto for the meaning of each field.

    Attributes:
        loss_quantiles: Min, quartiles and max of the final losses; None before the first member ended well.
        worst: Key and final loss, largest first.
    """

    members_done: int
    members_failed: int
    members_total: int
    loss_quantiles: Quantiles | None
    worst: tuple[tuple[Key, float], ...]
    eta_seconds: float
    elapsed_seconds: float
    validation_quantiles: Quantiles | None = None
    """As ``loss_quantiles``, of the losses on held-out rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemberLog:
    """An epoch of one member whose logs were asked for."""

    key: Key
    log: EpochLog


EventBody = (
    Queued
    | Started
    | EpochLog
    | FleetProgress
    | MemberLog
    | Warned
    | Paused
    | Resumed
    | Succeeded
    | Failure
    | Cancelled
)


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of a run's log.

    Attributes:
        sequence: 1, 2, 3 … without gaps.
        time: When it happened, UTC.
        encoded: As it is stored and sent, once somebody encoded it; no part of the event.
    """

    sequence: int
    time: datetime
    body: EventBody
    encoded: bytes = field(default=b"", init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as a client sees it; see the proto for the meaning of each field."""

    run_id: str
    state: RunState
    model: str
    spec: TrainingSpec
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    version: int | None = None
    failure: Failure | None = None
    latest_log: EpochLog | None = None
    latest_sequence: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
