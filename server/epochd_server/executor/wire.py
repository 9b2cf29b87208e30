"""What the server and a worker say to each other.

    server → worker   WorkerConfig, then TrainCohort, TrainFleet and StopRuns
    worker → server   Ready or StartFailed, then bundles (tuples) of reports; CohortDone is a cohort's last

Reports are columns over the members of a cohort (M of them), which are numbered as the cohort's runs are, or as the
members of a fleet's part are in the order of keys: a thousand members cost hardly more than one.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import MemberCheckpoint, State
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.validation import Evaluation, Metric
from epochd_server.domain.work import DatasetFile

Rows = tuple[NDArray[np.floating], NDArray[np.generic], NDArray[np.floating] | None]
"""Features [N, d], targets and weights of one run, as in TrainingArrays."""

Stacked = Mapping[str, NDArray[np.floating]]
"""Parameters by name, [M, …] each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """How a worker is to be.

    Attributes:
        modules: Where registered modules come from.
        nice: Added to its niceness, so that serving comes before training.
        server_pid: The process it serves and must not outlive.
    """

    modules: tuple[str, ...]
    nice: int
    server_pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is warm and waits for work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """The worker cannot start."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainCohort:
    """Runs of one signature to be trained.

    Attributes:
        run_ids: K of them.
        lead: The first run's spec; what the signature covers is the same for all.
        columns: What differs: float64, int64 or bool, [K] each, by the name it has in :mod:`.packing`.
        data: Rows of each run, or the file they are in.
        held_out: Held-out rows of each run whose rows are here, or None.
        initial: Start values, [K, …] each, NaN for runs that start afresh; None: all do.
        resume: Runs that were interrupted, by their positions, and where they go on.
        checkpoint_seconds: How often to report where the runs are.
    """

    run_ids: tuple[str, ...]
    lead: TrainingSpec
    columns: Mapping[str, NDArray[np.generic]]
    data: tuple[Rows | DatasetFile, ...]
    held_out: tuple[Rows | None, ...]
    initial: Stacked | None = None
    resume: Mapping[int, MemberCheckpoint] = field(default_factory=dict)
    checkpoint_seconds: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainFleet:
    """A part of a fleet to be trained: some of its members, neighbours in the order of keys.

    Attributes:
        data: The rows of these members, with their groups (without keys); of a sweep those that all members share.
        share: The first of these members, and the one after the last.
        logged: Those of them whose epochs are to be told, counted from the part's first.
        initial: Start values, [M, …] each, NaN for members that start afresh; None: all do.
        ended: Members whose end is known already, counted as ``logged``; they are not trained.
        resume: Members that were interrupted, counted likewise, and where they go on.
        checkpoint_seconds: How often to report where the members in training are.
    """

    run_id: str
    spec: TrainingSpec
    data: TrainingArrays | DatasetFile
    share: tuple[int, int]
    logged: tuple[int, ...] = ()
    initial: Stacked | None = None
    ended: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    resume: Mapping[int, MemberCheckpoint] = field(default_factory=dict)
    checkpoint_seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class StopRuns:
    """These runs shall stop at their next epoch; unknown ones are ignored."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CohortBegan:
    """Training of all members began."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetBegan:
    """Training of a fleet's part began.

    Attributes:
        rows: How many each of its M members is trained on, int64 [M]; of a sweep whose members share all rows,
            these.
    """

    device: str
    rows: NDArray[np.int64] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFailed:
    """A fleet that cannot be trained at all; reason, message and hint are for its owner."""

    reason: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOutColumns:
    """What M log points or members reach on their held-out rows.

    Attributes:
        metrics: What was measured.
        losses: float64 [M].
        values: float64 [M, metrics].
        rows: Of members that ended: how many held-out rows each has, int64 [M]; of log points [0].
        best_epochs: Of members that ended: the epoch whose parameters each has, −1 for its last one; of log points
            [0].
        reports: Of runs that ended: all that is known of them, one a member.
    """

    metrics: tuple[Metric, ...]
    losses: NDArray[np.float64]
    values: NDArray[np.float64]
    rows: NDArray[np.int64]
    best_epochs: NDArray[np.int64]
    reports: tuple[Evaluation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogColumns:
    """M log points; those of one member are in the order of its epochs.

    Attributes:
        with_parameters: Positions of the points that carry parameters, [M'], or None.
        parameters: Theirs, by name [M', …].
        held_out: What the points reach on held-out rows; None where there are none.
    """

    members: NDArray[np.int64]
    epochs: NDArray[np.int64]
    losses: NDArray[np.float64]
    lrs: NDArray[np.float64]
    rows_per_second: NDArray[np.float64]
    with_parameters: NDArray[np.int64] | None
    parameters: Stacked
    held_out: HeldOutColumns | None = None

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        return 40 * len(self.members) + sum(array.nbytes for array in self.parameters.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProgressColumns:
    """Where M members in training are, between two epochs.

    Attributes:
        epochs: The epoch that comes next.
        state: What the engine needs to go on from there, [M, …] each.
        seconds: Since the cohort began.
    """

    members: NDArray[np.int64]
    epochs: NDArray[np.int64]
    state: State
    seconds: float

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        return sum(array.nbytes for array in self.state.values())

    def of_members(self) -> Iterator[tuple[int, MemberCheckpoint]]:
        """Each member, and where it is."""
        for position, (member, epoch) in enumerate(
            zip(self.members.tolist(), self.epochs.tolist(), strict=True)
        ):
            state = {name: np.asarray(array[position]) for name, array in self.state.items()}
            yield member, MemberCheckpoint(epoch, state)


class Outcome(enum.IntEnum):
    """How a member's training ended."""

    FINISHED = 0
    DIVERGED = 1
    STOPPED = 2
    FAILED = 3
    """By an error of its module; used for members of fleets, which do not have an owner each."""
    RANK_DEFICIENT = 4
    SEPARABLE_CLASSES = 5
    NOT_CONVERGED = 6


EXACT_FAILURES: Mapping[int, str] = MappingProxyType(
    {
        outcome.value: outcome.name
        for outcome in (Outcome.RANK_DEFICIENT, Outcome.SEPARABLE_CLASSES, Outcome.NOT_CONVERGED)
    }
)
"""Outcomes of exact fits without a result → reason, a key of FIT_FAILURES."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EndColumns:
    """M members that ended; those of a cohort without an error.

    Attributes:
        outcomes: :class:`Outcome` values.
        epochs: Epochs done; for one that diverged the epoch in which it did.
        parameters: Those at the end.
        seconds: Since the cohort began.
        statistics: Exact fits: by name, [M, …] each.
        held_out: What the members reach on held-out rows; None where there are none.
        stable_lrs: Largest learning rates with which those that diverged would not, NaN or None where not known.
    """

    members: NDArray[np.int64]
    outcomes: NDArray[np.int64]
    epochs: NDArray[np.int64]
    final_losses: NDArray[np.float64]
    parameters: Stacked
    seconds: float
    statistics: Stacked = field(default_factory=dict)
    held_out: HeldOutColumns | None = None
    stable_lrs: NDArray[np.float64] | None = None

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        arrays = (*self.parameters.values(), *self.statistics.values())
        return 40 * len(self.members) + sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersFailed:
    """Members that an error took out of their cohort; reason, message and hint are for their owners."""

    members: tuple[int, ...]
    reason: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something for the server's log, not for clients."""

    event: str
    run_ids: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class CohortDone:
    """All members have ended; the worker waits for work."""


Work = TrainCohort | TrainFleet

Report = (
    CohortBegan
    | FleetBegan
    | LogColumns
    | ProgressColumns
    | EndColumns
    | MembersFailed
    | FleetFailed
    | Problem
    | CohortDone
)
