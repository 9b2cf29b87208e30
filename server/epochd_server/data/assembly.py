"""From values that were read to the data of a training, a fleet's rows sorted by member.

Legend: N rows, K members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.grouping import Assignment
from epochd_server.data.targets import Targets
from epochd_server.domain.data import Classes, ColumnRoles, TrainingArrays
from epochd_server.domain.fleets import Groups
from epochd_server.domain.work import DatasetFile

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
) -> TrainingArrays:
    """The arrays of a training.

    Args:
        features: [N, d], in the order of the table.
        targets: As the loss takes them, in the order of the table.
        weights: [N], or None where all rows count alike.
        fleet: The members, or None where one model is trained.
        roles: The columns, all named.
    """
    order = None if fleet is None else fleet.assignment.order()
    return TrainingArrays(
        features=_sorted(features, order),
        targets=_sorted(targets.values, order),
        feature_columns=roles.features,
        target_columns=roles.targets,
        classes=targets.classes,
        groups=None if fleet is None else _groups(fleet),
        weights=None if weights is None else _sorted(weights, order),
    )


def locate(path: Path, roles: ColumnRoles, classes: Classes | None, fleet: Fleet | None) -> DatasetFile:
    """Where a worker finds the rows of a training on a stored dataset.

    Args:
        path: The dataset's file.
        roles: The columns, all named.
        classes: Of a classifier.
        fleet: The members, or None where one model is trained.
    """
    if fleet is None:
        return DatasetFile(path=str(path), roles=roles, classes=classes)
    order = fleet.assignment.order()
    if order is not None and len(order) <= _NARROW_ROWS:
        order = order.astype(np.uint32)
    return DatasetFile(path=str(path), roles=roles, classes=classes, groups=_groups(fleet), rows=order)


def _groups(fleet: Fleet) -> Groups:
    assignment = fleet.assignment
    return Groups(keys=assignment.keys, offsets=assignment.offsets(), unfit=fleet.unfit)


def _sorted(array: NDArray[_Number], order: NDArray[np.int64] | None) -> NDArray[_Number]:
    return array if order is None else array.take(order, axis=0)
