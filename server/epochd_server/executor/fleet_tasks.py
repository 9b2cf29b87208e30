"""From a fleet's part to the engine's task: one member for each key, or for each combination of a sweep.

Legend: M members of the part, F of them fit to be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Keys, Sweep
from epochd_server.domain.specs import TrainingSpec
from epochd_server.engine.cohort import CohortData, CohortTask
from epochd_server.executor.packing import OPTIMIZER_COLUMNS
from epochd_server.executor.shares import keys_of_share
from epochd_server.executor.tasks import Columns, task_of

_COLUMN_OF = {"seed": "seeds"}
"""Swept names that the task's columns have otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetTask:
    """A part of a fleet, ready to be trained.

    Attributes:
        keys: Of the part's M members.
        rows: int64 [M].
        unfit: Members that are not trained → reason in UPPER_SNAKE.
        fit: int64 [F], the members that the engine is given, in its order.
        logged: Bool [F], those of them whose epochs are to be told.
        task: The engine's task over the F members.
    """

    keys: Keys
    rows: NDArray[np.int64]
    unfit: Mapping[int, str]
    fit: NDArray[np.int64]
    logged: NDArray[np.bool_]
    task: CohortTask


def fleet_task(spec: TrainingSpec, data: TrainingArrays, share: tuple[int, int]) -> FleetTask:
    """The task for a part of a fleet.

    Args:
        spec: What is trained; its ``sweep`` or the data's groups make the members.
        data: The rows; where there are groups, the part's own.
        share: Of a sweep: which part of the members, of how many.
    """
    if spec.sweep is not None:
        return _sweep_task(spec, spec.sweep, data, share)
    if data.groups is None:
        raise ValueError("a fleet needs groups or a sweep")
    return _grouped_task(spec, data, data.groups)


def _sweep_task(spec: TrainingSpec, sweep: Sweep, data: TrainingArrays, share: tuple[int, int]) -> FleetTask:
    size, (part, parts) = sweep.size, share
    keys = keys_of_share(sweep.keys(), size * part // parts, size * (part + 1) // parts)
    members = np.arange(len(keys))
    rows = np.full(len(keys), data.rows)
    shared = CohortData(
        features=data.features,
        targets=data.targets,
        offsets=np.array([0, data.rows]),
        weights=data.weights,
    )
    swept = {
        _COLUMN_OF.get(name, name): column for name, column in zip(keys.names, keys.columns, strict=True)
    }
    logged = _logged(spec, keys, members)
    task = _task(spec, shared, logged, swept, shared_data=True)
    return FleetTask(keys=keys, rows=rows, unfit={}, fit=members, logged=logged, task=task)


def _grouped_task(spec: TrainingSpec, data: TrainingArrays, groups: Groups) -> FleetTask:
    rows = np.diff(groups.offsets)
    is_fit = np.ones(len(rows), np.bool_)
    is_fit[list(groups.unfit)] = False
    fit = np.flatnonzero(is_fit)
    logged = _logged(spec, groups.keys, fit)
    return FleetTask(
        keys=groups.keys,
        rows=rows,
        unfit=groups.unfit,
        fit=fit,
        logged=logged,
        task=_task(spec, _rows_of(data, rows, is_fit), logged, {}),
    )


def _rows_of(data: TrainingArrays, sizes: NDArray[np.int64], members: NDArray[np.bool_]) -> CohortData:
    """The rows of some members, bool [M]; copied only where others must be left out."""
    rows = slice(None) if members.all() else np.repeat(members, sizes)
    return CohortData(
        features=data.features[rows],
        targets=data.targets[rows],
        offsets=np.concatenate([[0], np.cumsum(sizes[members])]).astype(np.int64),
        weights=None if data.weights is None else data.weights[rows],
    )


def _logged(spec: TrainingSpec, keys: Keys, fit: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool [F]: the members whose epochs were asked for."""
    if not spec.logging.members:
        return np.zeros(len(fit), np.bool_)
    # imported here: only a fleet with logged members needs it
    from epochd_server.data.grouping import find_member

    asked = [find_member(keys, key) for key in spec.logging.members]
    return np.isin(fit, [member for member in asked if member is not None])


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
