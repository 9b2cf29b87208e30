"""From what a worker is sent to the engine's task: rows, and columns over the members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import MemberCheckpoint
from epochd_server.domain.exact_fits import ExactFit
from epochd_server.domain.specs import GradientFit, ModuleModel, TrainingSpec
from epochd_server.domain.validation import Metric
from epochd_server.domain.work import DatasetFile
from epochd_server.engine.cohort import CohortData, CohortTask, Hyperparameters
from epochd_server.engine.exact.task import ExactTask
from epochd_server.engine.fitting import Task
from epochd_server.executor.packing import OPTIMIZER_COLUMNS, PENALTY_COLUMNS
from epochd_server.executor.wire import Rows, Stacked, TrainCohort

Columns = Mapping[str, NDArray[np.generic]]
Number = TypeVar("Number", bound=np.generic)


def task_of(
    spec: TrainingSpec,
    data: CohortData,
    columns: Columns,
    held_out: CohortData | None = None,
    *,
    shared_data: bool = False,
    initial: Stacked | None = None,
) -> Task:
    """The engine's task for members that have all in common but their columns.

    Args:
        spec: What they have in common.
        data: Their rows.
        columns: By name, [K] each: epochs, seeds, log_every, log_parameters and those of the optimizer.
        held_out: Their held-out rows, or None.
        shared_data: Whether every member trains on all rows.
        initial: Their start values, [K, …] each, NaN for those that start afresh; None: all do.
    """
    fit = spec.fit
    if not isinstance(fit, GradientFit):
        return _exact_task(spec, fit, data, columns, held_out)
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
            **{name: columns[name].astype(np.float64) for name in (*OPTIMIZER_COLUMNS, *PENALTY_COLUMNS)},
            nesterov=fit.optimizer.nesterov,
            centered=fit.optimizer.centered,
        ),
        log_every=columns["log_every"].astype(np.int64),
        log_parameters=columns["log_parameters"].astype(np.bool_),
        initial=initial,
        validation=held_out,
        metrics=_metrics(spec),
        schedule=fit.schedule,
        warmup=fit.warmup,
        clipping=fit.clipping,
        early_stopping=None if spec.validation is None else spec.validation.early_stopping,
    )


def _metrics(spec: TrainingSpec) -> tuple[Metric, ...]:
    return () if spec.validation is None else spec.validation.metrics


def _exact_task(
    spec: TrainingSpec, fit: ExactFit, data: CohortData, columns: Columns, held_out: CohortData | None
) -> ExactTask:
    if isinstance(spec.model, ModuleModel):
        raise TypeError("modules are fitted by gradient only")
    return ExactTask(
        model=spec.model,
        loss=spec.loss,
        fit=fit,
        init=spec.init,
        precision=spec.precision,
        data=data,
        seeds=columns["seeds"].astype(np.int64),
        log_every=columns["log_every"].astype(np.int64),
        log_parameters=columns["log_parameters"].astype(np.bool_),
        validation=held_out,
        metrics=_metrics(spec),
    )


def cohort_task(work: TrainCohort, members: NDArray[np.int64]) -> Task:
    """The engine's task for some members of a cohort.

    Args:
        work: The cohort.
        members: Positions of the members, [K].

    Raises:
        EpochdError: A dataset cannot be read any more.
    """
    spec, columns = work.lead, {name: values[members] for name, values in work.columns.items()}
    loaded = [_loaded(work.data[member], work.held_out[member], spec) for member in members.tolist()]
    held_out = [rows for _, rows in loaded if rows is not None]
    task = task_of(
        spec,
        _joined([rows for rows, _ in loaded]),
        columns,
        _joined(held_out) if held_out else None,
        initial=members_of(work.initial, members),
    )
    return with_checkpoints(task, members, work.resume, work.checkpoint_seconds)


def with_checkpoints(
    task: Task, members: NDArray[np.int64], resume: Mapping[int, MemberCheckpoint], seconds: float
) -> Task:
    """The task of some members, which go on where they were and are saved.

    Args:
        task: What they are trained for.
        members: Their numbers in ``resume``, [K].
        resume: Where members are that were interrupted.
        seconds: How often they are saved.
    """
    places = {place: resume[member] for place, member in enumerate(members.tolist()) if member in resume}
    return replace(task, resume=places, checkpoint_seconds=seconds)


def members_of(initial: Stacked | None, members: NDArray[np.int64]) -> Stacked | None:
    """The start values of some members."""
    return None if initial is None else {name: array[members] for name, array in initial.items()}


def weighted(work: TrainCohort) -> NDArray[np.bool_]:
    """Bool [K]: members whose rows have weights. Those with and without must not share a task."""
    return np.array(
        [
            data.roles.weight is not None if isinstance(data, DatasetFile) else data[2] is not None
            for data in work.data
        ],
        np.bool_,
    )


def apart(work: TrainCohort) -> NDArray[np.bool_]:
    """Bool [K]: members whose rows are too many for memory. Each has a task of its own, so that none are copied."""
    return np.array([isinstance(data, DatasetFile) and data.large for data in work.data], np.bool_)


def _loaded(data: Rows | DatasetFile, held_out: Rows | None, spec: TrainingSpec) -> tuple[Rows, Rows | None]:
    """The rows to train on, and those that are held out."""
    if not isinstance(data, DatasetFile):
        return data, held_out
    # imported here: it brings in pyarrow, which a run with inline rows does without
    from epochd_server.data.loading import load_training_arrays

    arrays = load_training_arrays(data, spec)
    rows = arrays.features, arrays.targets, arrays.weights
    validation = arrays.validation
    if validation is None:
        return rows, None
    return rows, (validation.features, validation.targets, validation.weights)


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
