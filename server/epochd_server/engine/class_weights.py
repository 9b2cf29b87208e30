"""Weights of classes as weights of rows.

The mean over rows weighted by their classes' weights is what ``torch.nn.functional.cross_entropy(weight=…)`` gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import Loss, LossKind
from epochd_server.engine.task import CohortData, CohortTask, Floats, Integers


def class_weighted(task: CohortTask, data: CohortData) -> Floats | None:
    """The rows' weights [N] with those of their classes; None is 1 each.

    Args:
        task: Says which weights classes have; balanced ones are those of its training rows.
        data: The rows, of any length: training rows or held-out ones.
    """
    loss = task.loss
    if loss.class_weights is None and not loss.balanced:
        return data.weights
    classes = _classes(loss, data)
    if loss.class_weights is not None:
        weights = np.array([weight for _, weight in loss.class_weights])[classes]
    else:
        weights = _balanced(task)[_members(task, data), classes]
    if data.weights is not None:
        weights = weights * data.weights
    return weights.astype(task.dtype)


def _classes(loss: Loss, data: CohortData) -> Integers:
    if loss.kind is LossKind.CROSS_ENTROPY:
        return np.asarray(data.targets, np.int64)
    return (np.asarray(data.targets, np.float64).reshape(-1) > 0.5).astype(np.int64)


def _members(task: CohortTask, data: CohortData) -> Integers:
    """Which member each row belongs to, [N]; 0 throughout where all share their rows."""
    if task.shared_data:
        return np.zeros(len(data.features), np.int64)
    return np.repeat(np.arange(task.members), np.diff(data.offsets))


def _balanced(task: CohortTask) -> NDArray[np.float64]:
    """Rows / (classes · rows of the class) of each member [K, C]; counted are the classes that it has."""
    data = task.data
    classes, members = _classes(task.loss, data), _members(task, data)
    width = int(classes.max(initial=0)) + 1
    shape = (1 if task.shared_data else task.members, max(width, 2))
    counts = np.bincount(members * shape[1] + classes, data.weights, shape[0] * shape[1]).reshape(shape)
    present = (counts > 0).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        balanced = counts.sum(1, keepdims=True) / (present * counts)
    return np.where(counts > 0, balanced, 1.0)
