"""Which rows each member of a task trains on, and in which batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.large_tables import RowSize
from epochd_server.domain.specs import LossKind
from epochd_server.engine.arrays import kernel_array
from epochd_server.engine.class_weights import class_scales, class_weighted
from epochd_server.engine.task import CohortData, CohortTask, Floats, Integers


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of all members, without copies."""

    features: Floats
    """[N, d], contiguous."""
    targets: NDArray[np.generic]
    """[N, t] floats, or int64 [N] class indices."""
    weights: Floats | None
    """[N], those of classes included, unless these are in ``class_scales``."""
    starts: Integers
    """[K] first row of each member."""
    counts: Integers
    """[K]"""
    batch: Integers
    """[K] rows of a batch: the task's batch size, or all rows."""
    large: NDArray[np.bool_]
    """[K] whether a member's rows are large: such rows are taken in windows, and may be on the disk."""
    class_scales: NDArray[np.float64] | None = None
    """[1 or K, C] weights of classes, where all members are large: rows get theirs batch by batch."""

    @property
    def classes(self) -> bool:
        """Whether targets are class indices."""
        return self.targets.ndim == 1


def rows_of(task: CohortTask, data: CohortData | None = None) -> Rows:
    """The rows of a task's members.

    Args:
        task: What is trained.
        data: Which of its rows; None is those it trains on.
    """
    data = task.data if data is None else data
    members = task.members
    if task.shared_data:
        starts = np.zeros(members, np.int64)
        counts = np.full(members, len(data.features), np.int64)
    else:
        starts = np.asarray(data.offsets[:-1], np.int64)
        counts = np.asarray(data.offsets[1:], np.int64) - starts
    batch = counts if task.batch_size is None else np.minimum(counts, task.batch_size)
    large = counts > _size(task, data).most_rows
    scales = class_scales(task) if large.all() else None
    weights = class_weighted(task, data, task.dtype) if scales is None else data.weights
    return Rows(
        features=kernel_array(data.features, task.dtype),
        targets=_targets(task, data),
        weights=None if weights is None else kernel_array(weights, task.dtype),
        starts=starts,
        counts=counts,
        batch=batch,
        large=large,
        class_scales=scales,
    )


def _size(task: CohortTask, data: CohortData) -> RowSize:
    targets = 1 if data.targets.ndim == 1 else data.targets.shape[1]
    weighted = data.weights is not None
    return RowSize.of(data.features.shape[1], targets, task.dtype.itemsize, weighted=weighted)


def _targets(task: CohortTask, data: CohortData) -> NDArray[np.generic]:
    targets = data.targets
    if task.loss.kind is LossKind.CROSS_ENTROPY:
        return kernel_array(targets, np.int64)
    return kernel_array(targets.reshape(len(targets), -1), task.dtype)
