"""What the server and its executor say to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import Checkpoint
from epochd_server.domain.data import Classes, ColumnRoles, TrainingArrays
from epochd_server.domain.fleets import Groups, Members
from epochd_server.domain.large_tables import DrawnRows
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.runs import EpochLog, Failure, FleetProgress, MemberLog, Parameters
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.validation import Evaluation

RowChoice = slice | NDArray[np.integer] | None
"""Rows of a table in an order: a range of them, or their numbers; None is all of them, as they are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DatasetFile:
    """A stored dataset that the worker reads by itself: an Arrow IPC file that it memory-maps.

    Attributes:
        path: The file.
        roles: The columns to learn from and to predict, all named.
        classes: The classes that planning found; None for a regression.
        groups: Fleets: the members to be trained, whose rows are those that ``rows`` chooses.
        rows: Which rows are to be read. Of a fleet they are sorted by member.
        validation: Where the held-out rows are; None where there are none.
        folds: Cross-validation: the fold of each row, as in TrainingArrays.
        preprocess: What the feature columns go through; None where they are features as they are.
        large: Whether the rows are too many for memory: they are then trained from the disk.
        drawn: How rows are held out of large ones; None where none are, or they are ``validation``.
    """

    path: str
    roles: ColumnRoles
    classes: Classes | None = None
    groups: Groups | None = None
    rows: RowChoice = None
    validation: TrainingArrays | DatasetFile | None = None
    folds: NDArray[np.int16] | None = None
    preprocess: FittedPreprocessing | None = None
    large: bool = False
    drawn: DrawnRows | None = None

    def of_fold(self, fold: int) -> DatasetFile:
        """The same with the preprocessing of a fold's member."""
        fitted = self.preprocess
        return self if fitted is None or not fitted.folds else replace(self, preprocess=fitted.folds[fold])

    @property
    def nbytes(self) -> int:
        """Bytes that the choice of rows takes; the rows themselves are on the disk."""
        held_out = 0 if self.validation is None else self.validation.nbytes
        return held_out + (self.rows.nbytes if isinstance(self.rows, np.ndarray) else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWork:
    """A run to be trained. ``spec`` has every size resolved.

    Attributes:
        members: Fleets: their number; 0 for a single model.
        seconds: A fleet's training on one core, as estimated: what it is cut into parts by.
        initial: Start values by name, of a fleet [K, …] each, NaN for members that start afresh; None: all do.
        checkpoint: Where it goes on, if it was interrupted.
    """

    run_id: str
    spec: TrainingSpec
    data: TrainingArrays | DatasetFile
    members: int = 0
    seconds: float = 0.0
    initial: Parameters | None = None
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortWork:
    """Runs of one signature, trained together.

    Attributes:
        checkpoint_seconds: How often to tell where they are.
    """

    cohort_id: str
    runs: tuple[RunWork, ...]
    checkpoint_seconds: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBegan:
    """Training of a run began."""

    run_id: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunLogged:
    """Epochs of a run, in order."""

    run_id: str
    logs: Sequence[EpochLog]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetAdvanced:
    """News of a fleet: where it is, and epochs of members whose logs were asked for."""

    run_id: str
    news: tuple[FleetProgress | MemberLog, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunCheckpointed:
    """Where the training of a run is: all that was told before leads up to there."""

    run_id: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunTrained:
    """A run reached its last epoch."""

    run_id: str
    parameters: Parameters
    epochs: int
    final_loss: float
    training_seconds: float
    members: Members | None = None
    """Fleets: what became of each member; ``parameters`` then are [K, …]."""
    evaluation: Evaluation | None = None
    """Single models: how it does on the held-out rows; None where there are none."""
    statistics: Parameters = field(default_factory=dict)
    """Exact fits of a single model: by the names of :mod:`epochd_server.domain.statistics`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """A run cannot be finished."""

    run_id: str
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopped:
    """A run was stopped, as asked.

    Attributes:
        reached: What it has by then; None where that is nothing.
    """

    run_id: str
    epochs: int
    reached: RunTrained | None = None


WorkMessage = RunBegan | RunLogged | FleetAdvanced | RunCheckpointed | RunTrained | RunFailed | RunStopped


class WorkerDied(Exception):
    """A worker process ended while it had a cohort.

    Args:
        evidence: What is known, such as ``was killed by SIGKILL``.
        deaths: How many did so one after the other, of the same work; 0 where it was ended on purpose, which says
            nothing against what it trained.
    """

    def __init__(self, evidence: str, deaths: int = 1) -> None:
        self.evidence = evidence
        self.deaths = deaths
        super().__init__(evidence)
