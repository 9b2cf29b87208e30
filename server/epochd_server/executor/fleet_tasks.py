"""From a fleet's part to the engine's task: one member for each key, or for each combination of a sweep.

Legend: M members of the part, F of them fit to be trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Sweep
from epochd_server.domain.specs import TrainingSpec
from epochd_server.engine.cohort import CohortData, CohortTask
from epochd_server.executor.packing import OPTIMIZER_COLUMNS
from epochd_server.executor.tasks import Columns, task_of
from epochd_server.executor.wire import TrainFleet

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
    task: CohortTask


def fleet_task(work: TrainFleet, data: TrainingArrays) -> FleetTask:
    """The task for a part of a fleet.

    Args:
        work: The part; its spec's ``sweep`` or the data's groups make the members.
        data: Its rows.
    """
    if work.spec.sweep is not None:
        return _sweep_task(work, work.spec.sweep, data)
    if data.groups is None:
        raise ValueError("a fleet needs groups or a sweep")
    return _grouped_task(work, data, data.groups)


def _sweep_task(work: TrainFleet, sweep: Sweep, data: TrainingArrays) -> FleetTask:
    first, last = work.share
    shared = CohortData(
        features=data.features,
        targets=data.targets,
        offsets=np.array([0, data.rows]),
        weights=data.weights,
    )
    keys = sweep.keys()
    swept = {
        _COLUMN_OF.get(name, name): column[first:last]
        for name, column in zip(keys.names, keys.columns, strict=True)
    }
    fit = np.arange(last - first)
    logged = np.isin(fit, work.logged)
    return FleetTask(fit=fit, logged=logged, task=_task(work.spec, shared, logged, swept, shared_data=True))


def _grouped_task(work: TrainFleet, data: TrainingArrays, groups: Groups) -> FleetTask:
    sizes = np.diff(groups.offsets)
    is_fit = np.ones(len(sizes), np.bool_)
    is_fit[list(groups.unfit)] = False
    fit = np.flatnonzero(is_fit)
    logged = np.isin(fit, work.logged)
    return FleetTask(fit=fit, logged=logged, task=_task(work.spec, _rows_of(data, sizes, is_fit), logged, {}))


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
    *,
    shared_data: bool = False,
) -> CohortTask:
    fit, members = spec.fit, len(logged)
    columns: dict[str, NDArray[np.generic]] = {
        name: np.full(members, getattr(fit.optimizer, name)) for name in OPTIMIZER_COLUMNS
    }
    columns |= {
        "epochs": np.full(members, fit.epochs),
        "seeds": np.full(members, spec.seed),
        # the engine logs a member's first epoch always; of those not asked for, only this one
        "log_every": np.where(logged, spec.logging.every, fit.epochs),
        "log_parameters": logged & spec.logging.parameters,
    }
    return task_of(spec, data, columns | dict(swept), shared_data=shared_data)
