"""Row weights: a numeric column → how much each row counts.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import float_type
from epochd_server.data.fitness import WEIGHT_NOT_VALID, UnusableRows
from epochd_server.domain.data import ColumnKind
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Precision


def prepare_weights(
    columns: Columns,
    index: int | None,
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None = None,
) -> NDArray[np.floating] | None:
    """The weights [N] of the rows.

    Args:
        columns: Where they are; at least one row.
        index: The column of weights, or None where all rows count alike.
        precision: Their type.
        violations: Takes a column that is text, and of one model a weight below 0 or not finite, or none above 0.
        unusable: Fleets: takes the rows with a weight below 0 or not finite instead.

    Returns:
        None where there is no such column or anything is wrong; unusable weights of a fleet are 0.
    """
    if index is None:
        return None
    if not are_numbers(columns, index, violations):
        return None
    values = columns.values(index)
    with np.errstate(over="ignore"):
        weights: NDArray[np.floating] = values.astype(float_type(precision))
    sound = np.isfinite(weights) & (weights >= 0)
    if unusable is not None:
        unusable.add(WEIGHT_NOT_VALID, ~sound)
        return np.where(sound, weights, weights.dtype.type(0))
    check = WeightCheck()
    check.add(values, weights)
    if (problem := check.problem()) is not None:
        violations.add(columns.column_field(index), f"weight {columns.names[index]!r} {problem}")
        return None
    return weights


def load_weights(columns: Columns, index: int | None, precision: Precision) -> NDArray[np.floating] | None:
    """The weights [N] that :func:`prepare_weights` found to be good before; unusable ones of a fleet are 0."""
    if index is None:
        return None
    with np.errstate(over="ignore"):
        weights: NDArray[np.floating] = columns.values(index).astype(float_type(precision))
    return np.where(np.isfinite(weights) & (weights >= 0), weights, weights.dtype.type(0))


def are_numbers(columns: Columns, index: int, violations: Violations) -> bool:
    """Whether a column of weights holds numbers; reports what else it holds."""
    kind = _OTHERS.get(columns.kind(index))
    if kind is None:
        return True
    problem = f"weight {columns.names[index]!r} is {kind}; weights must be numbers"
    violations.add(columns.column_field(index), problem)
    return False


@dataclass(slots=True)
class WeightCheck:
    """Looks for weights that a training cannot use, some rows after the others.

    Attributes:
        count: How many there are, so far.
        row: The first row with one, counting from 0.
        value: What it holds.
        counts: Whether any row has a weight above 0.
    """

    count: int = 0
    row: int = 0
    value: float = 0.0
    counts: bool = False

    def add(self, values: NDArray[np.generic], weights: NDArray[np.floating], first: int = 0) -> None:
        """Looks at the rows from ``first`` on: what the column holds, and the same in the training's precision."""
        sound = np.isfinite(weights) & (weights >= 0)
        self.counts = self.counts or bool(weights.any())
        if sound.all():
            return
        if not self.count:
            row = int(np.argmin(sound))
            self.row, self.value = first + row, float(values[row])
        self.count += int(np.count_nonzero(~sound))

    def problem(self) -> str | None:
        """What is wrong, or None where nothing is."""
        if not self.count:
            return None if self.counts else "is 0 in every row: there is nothing to train on"
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"is {self.value:g} in row {self.row}{more}, counting from 0; weights are finite and >= 0"


_OTHERS = {ColumnKind.TEXT: "text", ColumnKind.TIMESTAMP: "a timestamp"}
