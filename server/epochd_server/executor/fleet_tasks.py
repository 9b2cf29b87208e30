"""From a fleet's part to the engine's task: one member for each key, or for each combination of a sweep.

Legend: M members of the part, F of them fit to be trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.splitting import trained_rows
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Sweep
from epochd_server.domain.specs import GradientFit, TrainingSpec
from epochd_server.domain.validation import Folds
from epochd_server.engine.cohort import CohortData
from epochd_server.engine.fitting import Task
from epochd_server.executor.packing import fit_values
from epochd_server.executor.tasks import Columns, members_of, task_of, with_checkpoints
from epochd_server.executor.wire import Stacked, TrainFleet

_COPIED_BYTES = 64 * 2**20
"""Rows of all folds' members together are copied into one task up to so many bytes; else each fold has its own."""
_COLUMN_OF = {"seed": "seeds"}
"""Swept names that the task's columns have otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetTask:
    """A part of a fleet, ready to be trained.

    Attributes:
        fit: int64 [F], the members of the part that the engine is given, in its order.
        logged: Bool [F], those of them whose epochs are to be told.
        task: The engine's task over the F members.
    """

    fit: NDArray[np.int64]
    logged: NDArray[np.bool_]
    task: Task


def fleet_tasks(work: TrainFleet, data: TrainingArrays) -> Iterator[FleetTask]:
    """The tasks for a part of a fleet, one after the other; most have one.

    Args:
        work: The part; its spec's ``sweep`` or the data's groups make the members.
        data: Its rows.
    """
    for part in _parts(work, data):
        if len(part.fit):
            task = with_checkpoints(part.task, part.fit, work.resume, work.checkpoint_seconds)
            yield replace(part, task=task)


def _parts(work: TrainFleet, data: TrainingArrays) -> Iterator[FleetTask]:
    if work.spec.sweep is not None:
        yield from _sweep_tasks(work, work.spec.sweep, data)
        return
    if data.groups is None:
        raise ValueError("a fleet needs groups or a sweep")
    yield _grouped_task(work, data, data.groups)


def rows_of_members(work: TrainFleet, data: TrainingArrays) -> NDArray[np.int64] | int:
    """How many rows each member of a part is trained on [M]; of a sweep whose members share all rows, these."""
    if work.spec.sweep is not None and data.folds is not None:
        folds = Folding(work, work.spec.sweep, data.folds)
        sizes = [int(np.count_nonzero(folds.trained(fold))) for fold in range(work.spec.sweep.folds)]
        return np.array(sizes, np.int64)[folds.of_members]
    return data.rows if data.groups is None else np.diff(data.groups.offsets)


class Folding:
    """Which rows the members of a part are trained and measured on.

    Args:
        work: The part.
        sweep: With folds.
        numbers: int16 [N], the fold of each row.
    """

    def __init__(self, work: TrainFleet, sweep: Sweep, numbers: NDArray[np.int16]) -> None:
        validation = work.spec.validation
        if validation is None or not isinstance(validation.rows, Folds):
            raise ValueError("folds are held out by a validation")
        self._split = validation.rows.split
        self._numbers = numbers
        first, last = work.share
        self.of_members: NDArray[np.int64] = sweep.keys().columns[-1][first:last].astype(np.int64)
        """[M] the fold of each member."""

    def trained(self, fold: int) -> NDArray[np.bool_]:
        """Bool [N]: the rows that a fold's members are trained on."""
        return trained_rows(self._numbers, fold, self._split)

    def held(self, fold: int) -> NDArray[np.bool_]:
        """Bool [N]: the rows that a fold's members are measured on."""
        return np.asarray(self._numbers == fold)


def _sweep_tasks(work: TrainFleet, sweep: Sweep, data: TrainingArrays) -> Iterator[FleetTask]:
    first, last = work.share
    everyone = np.setdiff1d(np.arange(last - first), work.ended)
    if data.folds is None:
        held_out = None if data.validation is None else _shared(data.validation)
        yield _sweep_task(work, sweep, everyone, _shared(data), held_out, shared_data=True)
        return
    folds = Folding(work, sweep, data.folds)
    if data.nbytes * len(everyone) <= _COPIED_BYTES:
        each = folds.of_members[everyone].tolist()
        copied = _copies(data, [folds.trained(fold) for fold in each])
        held_out = _copies(data, [folds.held(fold) for fold in each])
        yield _sweep_task(work, sweep, everyone, copied, held_out, shared_data=False)
        return
    for fold in np.unique(folds.of_members[everyone]).tolist():
        members = everyone[folds.of_members[everyone] == fold]
        rows, held_out = _copies(data, [folds.trained(fold)]), _copies(data, [folds.held(fold)])
        yield _sweep_task(work, sweep, members, rows, held_out, shared_data=True)


def _sweep_task(
    work: TrainFleet,
    sweep: Sweep,
    members: NDArray[np.int64],
    data: CohortData,
    held_out: CohortData | None,
    *,
    shared_data: bool,
) -> FleetTask:
    """Some of a part's members, by their numbers in it."""
    keys = sweep.keys()
    swept = {
        _COLUMN_OF.get(name, name): column[work.share[0] + members]
        for name, column in zip(keys.names, keys.columns, strict=True)
    }
    logged = np.isin(members, work.logged)
    initial = members_of(work.initial, members)
    task = _task(work.spec, data, logged, swept, held_out, initial, shared_data=shared_data)
    return FleetTask(fit=members, logged=logged, task=task)


def _shared(data: TrainingArrays) -> CohortData:
    return CohortData(
        features=data.features,
        targets=data.targets,
        offsets=np.array([0, data.rows]),
        weights=data.weights,
    )


def _copies(data: TrainingArrays, chosen: Sequence[NDArray[np.bool_]]) -> CohortData:
    """Some rows for each of several members, one member after the other."""
    numbers = [np.flatnonzero(rows) for rows in chosen]
    rows = np.concatenate(numbers)
    return CohortData(
        features=data.features[rows],
        targets=data.targets[rows],
        offsets=np.concatenate([[0], np.cumsum([len(one) for one in numbers])]).astype(np.int64),
        weights=None if data.weights is None else data.weights[rows],
    )


def _grouped_task(work: TrainFleet, data: TrainingArrays, groups: Groups) -> FleetTask:
    sizes = np.diff(groups.offsets)
    is_fit = np.ones(len(sizes), np.bool_)
    is_fit[list(groups.unfit)] = False
    is_fit[work.ended] = False
    fit = np.flatnonzero(is_fit)
    logged = np.isin(fit, work.logged)
    held_out = None
    if data.validation is not None and data.validation.groups is not None:
        held_out = _rows_of(data.validation, np.diff(data.validation.groups.offsets), is_fit)
    initial = members_of(work.initial, fit)
    task = _task(work.spec, _rows_of(data, sizes, is_fit), logged, {}, held_out, initial)
    return FleetTask(fit=fit, logged=logged, task=task)


def _rows_of(data: TrainingArrays, sizes: NDArray[np.int64], members: NDArray[np.bool_]) -> CohortData:
    """The rows of some members, bool [M]; copied only where others must be left out."""
    rows = slice(None) if members.all() else np.repeat(members, sizes)
    return CohortData(
        features=data.features[rows],
        targets=data.targets[rows],
        offsets=np.concatenate([[0], np.cumsum(sizes[members])]).astype(np.int64),
        weights=None if data.weights is None else data.weights[rows],
    )


def _task(
    spec: TrainingSpec,
    data: CohortData,
    logged: NDArray[np.bool_],
    swept: Columns,
    held_out: CohortData | None,
    initial: Stacked | None,
    *,
    shared_data: bool = False,
) -> Task:
    fit, members = spec.fit, len(logged)
    columns: dict[str, NDArray[np.generic]] = {}
    if isinstance(fit, GradientFit):
        columns |= {name: np.full(members, value) for name, value in fit_values(fit).items()}
    columns |= {
        "epochs": np.full(members, fit.epochs),
        "seeds": np.full(members, spec.seed),
        # the engine logs a member's first epoch always; of those not asked for, only this one
        "log_every": np.where(logged, spec.logging.every, fit.epochs),
        "log_parameters": logged & spec.logging.parameters,
    }
    return task_of(spec, data, columns | dict(swept), held_out, shared_data=shared_data, initial=initial)
