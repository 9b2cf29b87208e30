"""Weights of classes as weights of rows.

The mean over rows weighted by their classes' weights is what ``torch.nn.functional.cross_entropy(weight=…)`` gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import Loss, LossKind
from epochd_server.engine.task import CohortData, Floats, Integers

_PIECE_ROWS = 1 << 20


class ClassifierTask(Protocol):
    """What is to be known of a task, of gradient descent or an exact fit, to weigh its rows."""

    @property
    def loss(self) -> Loss:
        """Says which weights classes have."""

    @property
    def data(self) -> CohortData:
        """The training rows."""

    @property
    def validation(self) -> CohortData | None:
        """The held-out rows."""

    @property
    def members(self) -> int:
        """K."""

    @property
    def shared_data(self) -> bool:
        """Whether every member trains on all rows."""


def class_weighted(task: ClassifierTask, data: CohortData, dtype: np.dtype[np.floating]) -> Floats | None:
    """The rows' weights [N] with those of their classes; None is 1 each.

    Args:
        task: Says which weights classes have; balanced ones are those of its training rows.
        data: The rows, of any length: training rows or held-out ones.
        dtype: Of the result, where classes have weights.
    """
    scales = class_scales(task)
    if scales is None:
        return data.weights
    weights = np.empty(len(data.features), dtype)
    for rows in _pieces(data):
        classes = classes_of(task.loss, data.targets[rows])
        members = _members(data, rows) if len(scales) > 1 else 0
        own = None if data.weights is None else data.weights[rows]
        weights[rows] = scaled(scales, members, classes, own, dtype)
    return weights


def class_scales(task: ClassifierTask) -> NDArray[np.float64] | None:
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


def _members(data: CohortData, rows: slice) -> Integers:
    """Which member each of some rows belongs to, [n]; members do not share rows."""
    places = np.arange(rows.start, min(rows.stop, len(data.features)))
    return np.searchsorted(data.offsets[1:], places, "right")


def _balanced(task: ClassifierTask) -> NDArray[np.float64]:
    """Rows / (classes · rows of the class) of each member [K, C]; counted are the classes that it has."""
    counts = np.zeros((1 if task.shared_data else task.members, _width(task)))
    for rows in _pieces(task.data):
        _count(task, rows, counts)
    present = (counts > 0).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        balanced = counts.sum(1, keepdims=True) / (present * counts)
    return np.where(counts > 0, balanced, 1.0)


def _width(task: ClassifierTask) -> int:
    """How many classes there are, those that only held-out rows have included."""
    if task.loss.kind is not LossKind.CROSS_ENTROPY:
        return 2
    parts = (task.data,) if task.validation is None else (task.data, task.validation)
    return 1 + max(int(data.targets[rows].max()) for data in parts for rows in _pieces(data))


def _count(task: ClassifierTask, rows: slice, counts: NDArray[np.float64]) -> None:
    """Adds the weights of some rows to those of their members' classes [K, C]."""
    data = task.data
    classes = classes_of(task.loss, data.targets[rows])
    members = np.zeros(len(classes), np.int64) if task.shared_data else _members(data, rows)
    weights = 1.0 if data.weights is None else data.weights[rows]
    # one after the other, so that a member's sums do not depend on where pieces end
    np.add.at(counts, (members, classes), weights)


def _pieces(data: CohortData) -> Iterator[slice]:
    """All rows, some at a time: what is computed of them in between stays small."""
    return (slice(begin, begin + _PIECE_ROWS) for begin in range(0, len(data.features), _PIECE_ROWS))
