"""From what a worker is sent to the engine's task: rows, and columns over the members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.work import DatasetFile
from epochd_server.engine.cohort import CohortData, CohortTask, Hyperparameters
from epochd_server.executor.packing import OPTIMIZER_COLUMNS
from epochd_server.executor.wire import Rows, TrainCohort

Columns = Mapping[str, NDArray[np.generic]]
Number = TypeVar("Number", bound=np.generic)


def task_of(
    spec: TrainingSpec, data: CohortData, columns: Columns, *, shared_data: bool = False
) -> CohortTask:
    """The engine's task for members that have all in common but their columns.

    Args:
        spec: What they have in common.
        data: Their rows.
        columns: By name, [K] each: epochs, seeds, log_every, log_parameters and those of the optimizer.
        shared_data: Whether every member trains on all rows.
    """
    fit = spec.fit
    return CohortTask(
        model=spec.model,
        loss=spec.loss,
        optimizer_kind=fit.optimizer.kind,
        batch_size=fit.batch_size,
        shuffle=fit.shuffle,
        accumulation_steps=fit.accumulation_steps,
        init=spec.init,
        precision=spec.precision,
        data=data,
        shared_data=shared_data,
        epochs=columns["epochs"].astype(np.int64),
        seeds=columns["seeds"].astype(np.int64),
        hyperparameters=Hyperparameters(
            **{name: columns[name].astype(np.float64) for name in OPTIMIZER_COLUMNS},
            nesterov=fit.optimizer.nesterov,
        ),
        log_every=columns["log_every"].astype(np.int64),
        log_parameters=columns["log_parameters"].astype(np.bool_),
    )


def cohort_task(work: TrainCohort, members: NDArray[np.int64]) -> CohortTask:
    """The engine's task for some members of a cohort.

    Args:
        work: The cohort.
        members: Positions of the members, [K].

    Raises:
        EpochdError: A dataset cannot be read any more.
    """
    spec, columns = work.lead, {name: values[members] for name, values in work.columns.items()}
    return task_of(spec, _joined([_loaded(work.data[member], spec) for member in members.tolist()]), columns)


def weighted(work: TrainCohort) -> NDArray[np.bool_]:
    """Bool [K]: members whose rows have weights. Those with and without must not share a task."""
    return np.array(
        [
            data.roles.weight is not None if isinstance(data, DatasetFile) else data[2] is not None
            for data in work.data
        ],
        np.bool_,
    )


def _loaded(data: Rows | DatasetFile, spec: TrainingSpec) -> Rows:
    if not isinstance(data, DatasetFile):
        return data
    # imported here: it brings in pyarrow, which a run with inline rows does without
    from epochd_server.data.loading import load_training_arrays

    arrays = load_training_arrays(data, spec)
    return arrays.features, arrays.targets, arrays.weights


def _joined(rows: Sequence[Rows]) -> CohortData:
    """The rows of all members; either all of them have weights or none has."""
    weights = [weights for _, _, weights in rows if weights is not None]
    sizes = [len(features) for features, _, _ in rows]
    return CohortData(
        features=_concatenated([features for features, _, _ in rows]),
        targets=_concatenated([targets for _, targets, _ in rows]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        weights=_concatenated(weights) if weights else None,
    )


def _concatenated(arrays: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """One array after the other; writable, as PyTorch wants it."""
    return np.require(arrays[0], requirements=["C", "W"]) if len(arrays) == 1 else np.concatenate(arrays)
