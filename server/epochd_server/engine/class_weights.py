"""Weights of classes as weights of rows.

The mean over rows weighted by their classes' weights is what ``torch.nn.functional.cross_entropy(weight=…)`` gives.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import Loss, LossKind
from epochd_server.engine.task import CohortData, CohortTask, Floats, Integers

_PIECE_ROWS = 1 << 20


def class_weighted(task: CohortTask, data: CohortData) -> Floats | None:
    """The rows' weights [N] with those of their classes; None is 1 each.

    Args:
        task: Says which weights classes have; balanced ones are those of its training rows.
        data: The rows, of any length: training rows or held-out ones.
    """
    scales = class_scales(task)
    if scales is None:
        return data.weights
    members = _members(task, data) if len(scales) > 1 else np.zeros(len(data.features), np.int64)
    return scaled(scales, members, classes_of(task.loss, data.targets), data.weights, task.dtype)


def class_scales(task: CohortTask) -> NDArray[np.float64] | None:
    """The weights of classes, [K, C], or [1, C] where all members have the same; None where all are 1."""
    if task.loss.class_weights is not None:
        return np.array([[weight for _, weight in task.loss.class_weights]])
    return _balanced(task) if task.loss.balanced else None


def scaled(
    scales: NDArray[np.float64],
    members: Integers | int,
    classes: Integers,
    weights: Floats | None,
    dtype: np.dtype[np.floating],
) -> Floats:
    """Weights of some rows [n] with those of their classes.

    Args:
        scales: As :func:`class_scales` has them.
        members: The member of each row, [n] or one for all: its place in ``scales``.
        classes: [n] the class of each row.
        weights: The rows' own [n], or None.
        dtype: Of the result.
    """
    found: Floats = scales[members, classes]
    if weights is not None:
        found = found * weights
    return found.astype(dtype)


def classes_of(loss: Loss, targets: NDArray[np.generic]) -> Integers:
    """The classes [n] of some targets, as the loss takes them."""
    if loss.kind is LossKind.CROSS_ENTROPY:
        return np.asarray(targets, np.int64)
    return (np.asarray(targets, np.float64).reshape(-1) > 0.5).astype(np.int64)


def _members(task: CohortTask, data: CohortData) -> Integers:
    """Which member each row belongs to, [N]; 0 throughout where all share their rows."""
    if task.shared_data:
        return np.zeros(len(data.features), np.int64)
    return np.repeat(np.arange(task.members), np.diff(data.offsets))


def _balanced(task: CohortTask) -> NDArray[np.float64]:
    """Rows / (classes · rows of the class) of each member [K, C]; counted are the classes that it has."""
    width = 2
    if task.loss.kind is LossKind.CROSS_ENTROPY:
        width = max(width, 1 + max(int(task.data.targets[rows].max()) for rows in _pieces(task.data)))
    shape = (1 if task.shared_data else task.members, width)
    counts = np.zeros(shape)
    for rows in _pieces(task.data):
        _count(task, rows, counts)
    present = (counts > 0).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        balanced = counts.sum(1, keepdims=True) / (present * counts)
    return np.where(counts > 0, balanced, 1.0)


def _count(task: CohortTask, rows: slice, counts: NDArray[np.float64]) -> None:
    """Adds the weights of some rows to those of their members' classes [K, C]."""
    data = task.data
    classes = classes_of(task.loss, data.targets[rows])
    if task.shared_data:
        members = np.zeros(len(classes), np.int64)
    else:
        members = np.searchsorted(data.offsets[1:], np.arange(rows.start, rows.start + len(classes)), "right")
    weights = 1.0 if data.weights is None else data.weights[rows]
    # one after the other, so that a member's sums do not depend on where pieces end
    np.add.at(counts, (members, classes), weights)


def _pieces(data: CohortData) -> Iterator[slice]:
    """All rows, some at a time: what is computed of them in between stays small."""
    return (slice(begin, begin + _PIECE_ROWS) for begin in range(0, len(data.features), _PIECE_ROWS))
