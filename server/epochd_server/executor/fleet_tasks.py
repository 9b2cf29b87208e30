"""From a fleet's part to the engine's task: one member for each key, or for each combination of a sweep.

Legend: M members of the part, F of them fit to be trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Sweep
from epochd_server.domain.specs import GradientFit, TrainingSpec
from epochd_server.engine.cohort import CohortData
from epochd_server.engine.fitting import Task
from epochd_server.executor.fold_tasks import Folding, OfFold, fold_batches
from epochd_server.executor.narrowing import Narrowing
from epochd_server.executor.packing import fit_values
from epochd_server.executor.tasks import Columns, members_of, task_of, with_checkpoints
from epochd_server.executor.wire import Stacked, TrainFleet

_COLUMN_OF = {"seed": "seeds"}
"""Swept names that the task's columns have otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetTask:
    """A part of a fleet, ready to be trained.

    Attributes:
        fit: int64 [F], the members of the part that the engine is given, in its order.
        logged: Bool [F], those of them whose epochs are to be told.
        task: The engine's task over the F members.
        narrowing: Which features they are fitted without; None: none.
    """

    fit: NDArray[np.int64]
    logged: NDArray[np.bool_]
    task: Task
    narrowing: Narrowing | None = None


def fleet_tasks(work: TrainFleet, data: TrainingArrays, of_fold: OfFold | None = None) -> Iterator[FleetTask]:
    """The tasks for a part of a fleet, one after the other; most have one.

    Args:
        work: The part; its spec's ``sweep`` or the data's groups make the members.
        data: Its rows.
        of_fold: Cross-validation: reads them as the member of a fold sees them; None: ``data`` has all of that.
    """
    for part in _parts(work, data, data.of_fold if of_fold is None else of_fold):
        if len(part.fit):
            task = with_checkpoints(part.task, part.fit, work.resume, work.checkpoint_seconds)
            yield replace(part, task=task)


def _parts(work: TrainFleet, data: TrainingArrays, of_fold: OfFold) -> Iterator[FleetTask]:
    if work.spec.sweep is not None:
        yield from _sweep_tasks(work, work.spec.sweep, data, of_fold)
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


def _sweep_tasks(
    work: TrainFleet, sweep: Sweep, data: TrainingArrays, of_fold: OfFold
) -> Iterator[FleetTask]:
    first, last = work.share
    everyone = np.setdiff1d(np.arange(last - first), work.ended)
    if data.folds is None:
        held_out = None if data.validation is None else _shared(data.validation)
        yield _sweep_task(work, sweep, everyone, _shared(data), held_out, shared_data=True)
        return
    if not len(everyone):
        return
    for batch in fold_batches(Folding(work, sweep, data.folds), of_fold, everyone):
        narrowing = batch.narrowing
        narrowed = work if narrowing is None else replace(work, spec=narrowing.model(work.spec))
        part = _sweep_task(
            narrowed, sweep, batch.members, batch.data, batch.held_out, shared_data=batch.shared
        )
        yield replace(part, narrowing=narrowing)


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
