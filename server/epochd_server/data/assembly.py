"""From values that were read to the data of a training, a fleet's rows sorted by member.

Legend: N rows, K members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.grouping import Assignment
from epochd_server.data.targets import Targets
from epochd_server.domain.data import Classes, ColumnRoles, TrainingArrays
from epochd_server.domain.fleets import Groups
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.work import DatasetFile

Integers = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)
_NARROW_ROWS = 2**32


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """The members of a fleet.

    Attributes:
        assignment: The member of each row.
        unfit: Members that cannot be trained → reason in UPPER_SNAKE.
    """

    assignment: Assignment
    unfit: Mapping[int, str]


def assemble(
    features: NDArray[np.floating],
    targets: Targets,
    weights: NDArray[np.floating] | None,
    fleet: Fleet | None,
    roles: ColumnRoles,
    held: NDArray[np.bool_] | None = None,
) -> TrainingArrays:
    """The arrays of a training.

    Args:
        features: [N, d], in the order of the table.
        targets: As the loss takes them, in the order of the table.
        weights: [N], or None where all rows count alike.
        fleet: The members, or None where one model is trained.
        roles: The columns, all named.
        held: Bool [N], the rows that are held out, in the order of the table; None where none are.
    """

    def arrays(rows: Integers | None) -> TrainingArrays:
        return TrainingArrays(
            features=_sorted(features, rows),
            targets=_sorted(targets.values, rows),
            feature_columns=roles.features,
            target_columns=roles.targets,
            classes=targets.classes,
            groups=None if fleet is None else _groups(fleet, rows),
            weights=None if weights is None else _sorted(weights, rows),
        )

    trained, held_out = _sides(fleet, held)
    return arrays(trained) if held_out is None else replace(arrays(trained), validation=arrays(held_out))


def locate(
    path: Path,
    roles: ColumnRoles,
    classes: Classes | None,
    fleet: Fleet | None,
    held: NDArray[np.bool_] | None = None,
    preprocess: FittedPreprocessing | None = None,
) -> DatasetFile:
    """Where a worker finds the rows of a training on a stored dataset.

    Args:
        path: The dataset's file.
        roles: The columns, all named.
        classes: Of a classifier.
        fleet: The members, or None where one model is trained.
        held: Bool [N], the rows that are held out, in the order of the dataset; None where none are.
        preprocess: What the feature columns go through; None where they are features as they are.
    """

    def file(rows: Integers | None) -> DatasetFile:
        return DatasetFile(
            path=str(path),
            roles=roles,
            classes=classes,
            groups=None if fleet is None else _groups(fleet, rows),
            rows=None if rows is None else _narrow(rows),
            preprocess=preprocess,
        )

    trained, held_out = _sides(fleet, held)
    return file(trained) if held_out is None else replace(file(trained), validation=file(held_out))


def with_validation(
    data: TrainingArrays | DatasetFile, given: TrainingArrays | DatasetFile
) -> TrainingArrays | DatasetFile:
    """The data with held-out rows of their own; with arrays those are arrays too."""
    if isinstance(data, DatasetFile):
        return replace(data, validation=given)
    if isinstance(given, DatasetFile):
        raise TypeError("rows that came with the request are held against a file")
    return replace(data, validation=given)


def _sides(fleet: Fleet | None, held: NDArray[np.bool_] | None) -> tuple[Integers | None, Integers | None]:
    """The rows that are trained on and those that are held out, sorted by member; None: all as they are, or none."""
    order = None if fleet is None else fleet.assignment.order()
    if held is None:
        return order, None
    if order is None:
        return np.flatnonzero(~held), np.flatnonzero(held)
    chosen = held[order]
    return order[~chosen], order[chosen]


def _groups(fleet: Fleet, rows: Integers | None) -> Groups:
    """The members and where each one's rows begin among some rows, sorted by member; None is all."""
    assignment = fleet.assignment
    if rows is None or len(rows) == len(assignment.members):
        return Groups(keys=assignment.keys, offsets=assignment.offsets(), unfit=fleet.unfit)
    sizes = np.bincount(assignment.members[rows], minlength=len(assignment.keys))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Groups(keys=assignment.keys, offsets=offsets, unfit=fleet.unfit)


def _narrow(rows: Integers) -> NDArray[np.integer]:
    """Row numbers in half the bytes where they fit."""
    return rows.astype(np.uint32) if not len(rows) or rows.max() < _NARROW_ROWS else rows


def _sorted(array: NDArray[_Number], order: Integers | None) -> NDArray[_Number]:
    return array if order is None else array.take(order, axis=0)
