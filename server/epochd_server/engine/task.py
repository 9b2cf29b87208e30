"""What the engine is asked to train and what it hands back, as columns over the members of a cohort.

Shapes: K members, N rows in all, d features, t targets or classes, P parameters of one member.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import MemberCheckpoint, State
from epochd_server.domain.schedules import LinearLR, Schedule
from epochd_server.domain.specs import Clipping, Init, Loss, Model, OptimizerKind, Precision
from epochd_server.domain.validation import EarlyStopping, Metric

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

DTYPES: Mapping[Precision, type[np.floating]] = {
    Precision.FLOAT32: np.float32,
    Precision.FLOAT64: np.float64,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CohortData:
    """The rows of all members, one member after the other."""

    features: Floats
    """[N, d], in the precision of the task."""
    targets: NDArray[np.generic]
    """[N] or [N, t] in the precision of the task; int64 [N] class indices for cross_entropy."""
    offsets: Integers
    """[K + 1]; member k owns the rows ``offsets[k]:offsets[k + 1]``. Ignored when the task shares its data."""
    weights: Floats | None = None
    """[N], ≥ 0: how much each row counts. None means 1 each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hyperparameters:
    """The optimizer's numbers, float64 [K] each; those that the optimizer's kind does not have are ignored."""

    lr: NDArray[np.float64]
    weight_decay: NDArray[np.float64]
    momentum: NDArray[np.float64]
    dampening: NDArray[np.float64]
    beta1: NDArray[np.float64]
    beta2: NDArray[np.float64]
    eps: NDArray[np.float64]
    alpha: NDArray[np.float64]
    l1: NDArray[np.float64]
    """The penalty's, as l2."""
    l2: NDArray[np.float64]
    nesterov: bool = False
    """One for the whole cohort: it is part of the signature."""
    centered: bool = False
    """The same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CohortTask:
    """K trainings of one signature. Everything in it is validated and resolved: no size is None."""

    model: Model
    loss: Loss
    optimizer_kind: OptimizerKind
    batch_size: int | None
    """Rows per mini-batch; None is full batch."""
    shuffle: bool
    accumulation_steps: int
    init: Init
    precision: Precision
    data: CohortData
    shared_data: bool = False
    """Every member trains on all rows (a sweep)."""
    epochs: Integers
    """[K], ≥ 1."""
    seeds: Integers
    """[K]"""
    hyperparameters: Hyperparameters
    log_every: Integers
    """[K], ≥ 1: epochs 0, every, 2·every … are logged."""
    log_parameters: NDArray[np.bool_]
    """[K]"""
    initial: Mapping[str, Floats] | None = None
    """Start values by parameter name, [K, …] each; overrides ``init`` for all parameters of the members that have
    them: where any is NaN, a member starts as ``init`` says."""
    validation: CohortData | None = None
    """Held-out rows of every member, with offsets of their own; where data are shared, one set for all members."""
    metrics: tuple[Metric, ...] = ()
    """Measured on the held-out rows with their loss: after logged epochs, after those that early stopping decides by,
    and after a member's last."""
    schedule: Schedule | None = None
    """How learning rates change from epoch to epoch."""
    warmup: LinearLR | None = None
    """What goes before the schedule."""
    clipping: Clipping | None = None
    early_stopping: EarlyStopping | None = None
    """When members leave before their last epoch; needs ``validation``."""
    resume: Mapping[int, MemberCheckpoint] = field(default_factory=dict)
    """Members that go on from where they were, to the same bits as if they had never been interrupted."""
    checkpoint_seconds: float = math.inf
    """How often the observer is told where members are."""

    @property
    def members(self) -> int:
        """K."""
        return len(self.epochs)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The numpy dtype of parameters, data and arithmetic."""
        return np.dtype(DTYPES[self.precision])


class MemberState(enum.IntEnum):
    """How a member's training ended."""

    FINISHED = 0
    """It made all its epochs, or early stopping ended it."""
    DIVERGED = 1
    """Its loss or its parameters became NaN or infinite."""
    STOPPED = 2
    """As :meth:`Observer.stopped_members` asked."""
    FAILED = 3
    """Its module raised an error."""
    RANK_DEFICIENT = 4
    """Exact fits: its features depend on each other."""
    SEPARABLE_CLASSES = 5
    """Exact fits: its classes are separable, so that there is no finite optimum."""
    NOT_CONVERGED = 6
    """Exact fits: it took all iterations without coming to the optimum."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogBatch:
    """Log points of any members, M in all; those of one member are in the order of its epochs."""

    members: Integers
    epochs: Integers
    """Counted from 0, as in ``for epoch in range(epochs)``."""
    losses: NDArray[np.float64]
    """The loss before that epoch's update; for mini-batches the row-weighted mean as the epoch went along."""
    lrs: NDArray[np.float64]
    rows_per_second: NDArray[np.float64]
    parameters: list[dict[str, Floats] | None] | None
    """After the epoch's update, for members that log them; None when none of them does."""
    validation_losses: NDArray[np.float64] | None = None
    """The loss on the held-out rows *after* the epoch's update, unlike ``losses``; NaN for a member that has none.
    None where the task has no validation, as for ``metrics``."""
    metrics: NDArray[np.float64] | None = None
    """[M, metrics] after the epoch's update; NaN where one is not defined on a member's held-out rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EndBatch:
    """Members whose training ended, M in all."""

    members: Integers
    states: Integers
    """:class:`MemberState` values."""
    epochs_done: Integers
    final_losses: NDArray[np.float64]
    parameters: dict[str, Floats]
    """Name → [M, …], as they were at the end, or after ``best_epochs`` where early stopping restored those."""
    messages: list[str | None]
    """Why a member FAILED or DIVERGED, for its owner to read."""
    validation_losses: NDArray[np.float64]
    """The loss of these parameters on the held-out rows; NaN for members without, and those that did not finish."""
    metrics: NDArray[np.float64]
    """[M, metrics] of these parameters; NaN as for ``validation_losses``."""
    best_epochs: Integers
    """The epoch after whose update the parameters are those here, where early stopping restored the best; else −1."""
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Exact fits: by the names of :mod:`epochd_server.domain.statistics`, [M, …] each."""
    stable_lrs: NDArray[np.float64] | None = None
    """Of members that DIVERGED the largest learning rate with which they would not; NaN where that is not known, and
    for others. None where none is known."""


@dataclass(frozen=True, slots=True, eq=False)
class ProgressBatch:
    """Where M members are between two epochs, or two batches, in copies that nobody writes to.

    Attributes:
        members: [M]
        epochs: [M] the epoch that comes next, or that they are in.
        state: What has to be restored to go on from here, [M, …] each.
    """

    members: Integers
    epochs: Integers
    state: State


class Observer(Protocol):
    """Is told how a cohort goes on, on the thread that trains; what it does there delays the training."""

    def logs(self, batch: LogBatch) -> None:
        """New log points; called about every 50 ms at most, and before the end of a member is told."""

    def ended(self, batch: EndBatch) -> None:
        """Members that are done, each exactly once."""

    def progress(self, batch: ProgressBatch) -> None:
        """Where members are, every ``checkpoint_seconds``, and of those that stop before their end is told.

        All logs up to there are told first.
        """

    def stopped_members(self) -> Collection[int]:
        """Members that shall stop at their next epoch or sooner; asked about every 20 ms. May name ended members."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CohortResult:
    """What became of every member."""

    parameters: dict[str, Floats]
    """PyTorch's names (``linear.weight``, ``0.bias`` …) → [K, …], as in :class:`EndBatch`."""
    states: Integers
    """[K] :class:`MemberState` values."""
    epochs_done: Integers
    """[K] epochs whose update was made, fewer than asked where early stopping ended a member; for a diverged member
    the epoch in which it diverged."""
    final_loss: NDArray[np.float64]
    """[K] the last epoch's loss, so before its update, whether it is logged or not; of a stopped member the last
    logged one; NaN for members that diverged or logged nothing."""
    messages: list[str | None]
    """[K] why a member FAILED or DIVERGED."""
    validation_losses: NDArray[np.float64]
    """[K], as in :class:`EndBatch`; so are those below."""
    metrics: NDArray[np.float64]
    """[K, metrics]"""
    best_epochs: Integers
    """[K]"""
