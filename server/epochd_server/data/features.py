"""Features: numeric columns → one matrix.

Legend: N rows, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.fitness import FEATURE_NOT_FINITE, UnusableRows
from epochd_server.domain.data import ColumnKind
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Precision

_MAX_REPORTED = 20


def float_type(precision: Precision) -> np.dtype[np.floating]:
    """The numpy dtype of a precision."""
    return np.dtype(precision.value)


def prepare_features(
    columns: Columns,
    indices: Sequence[int],
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None = None,
) -> NDArray[np.floating] | None:
    """The matrix [N, d] of some columns, C-contiguous.

    Args:
        columns: Where they are.
        indices: Which they are, in order.
        precision: The matrix's type.
        violations: Takes every column that is text or, for one model, has a value that cannot be used.
        unusable: Fleets: takes the rows with such a value instead.

    Returns:
        None where there are violations.
    """
    if not all(_is_numeric(columns, index) for index in indices):
        check_features(columns, indices, precision, violations, unusable)
        return None
    matrix = np.empty((columns.rows, len(indices)), dtype=float_type(precision))
    with np.errstate(over="ignore"):
        columns.fill(indices, matrix)
    finite = np.isfinite(matrix)
    if finite.all():
        return matrix
    if unusable is not None:
        rows: NDArray[np.bool_] = np.any(~finite, axis=1)
        unusable.add(FEATURE_NOT_FINITE, rows)
        return matrix
    check_features(columns, indices, precision, violations)
    return None


def check_features(
    columns: Columns,
    indices: Sequence[int],
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None = None,
) -> None:
    """Reports what :func:`prepare_features` would, in the memory of one column."""
    numeric = numeric_columns(columns, indices, violations)
    if unusable is not None:
        for index in numeric:
            unusable.add(FEATURE_NOT_FINITE, not_finite(columns.values(index), precision))
        return
    report_values(
        columns, {index: wrong_value(columns.values(index), precision) for index in numeric}, violations
    )


def numeric_columns(columns: Columns, indices: Sequence[int], violations: Violations) -> list[int]:
    """Those of some columns that can be features as they are; the others are reported."""
    others = [index for index in indices if not _is_numeric(columns, index)]
    _report_others(columns, others, violations)
    return [index for index in indices if _is_numeric(columns, index)]


def report_values(columns: Columns, problems: Mapping[int, str | None], violations: Violations) -> None:
    """Reports columns with values that no training can use, the first ones by name."""
    found = [(index, problem) for index, problem in problems.items() if problem is not None]
    for index, problem in found[:_MAX_REPORTED]:
        violations.add(columns.column_field(index), f"feature {columns.names[index]!r} {problem}")
    if len(found) > _MAX_REPORTED:
        violations.add(columns.field, f"{len(found) - _MAX_REPORTED} more features have unusable values")


def not_finite(values: NDArray[np.generic], precision: Precision) -> NDArray[np.bool_]:
    """Which values [N] are not finite in the precision."""
    with np.errstate(over="ignore"):
        return ~np.isfinite(values.astype(float_type(precision), copy=False))


@dataclass(slots=True)
class ValueCheck:
    """Looks for values of a column that a training cannot use, some rows after the others.

    Attributes:
        precision: Of the training.
        count: How many there are, so far.
        row: The first row with one, counting from 0.
        value: What it holds.
    """

    precision: Precision
    count: int = 0
    row: int = 0
    value: float = 0.0

    def add(self, values: NDArray[np.generic], first: int = 0) -> None:
        """Looks at values [n] of the rows from ``first`` on."""
        wrong = not_finite(values, self.precision)
        if not wrong.any():
            return
        if not self.count:
            row = int(np.argmax(wrong))
            self.row, self.value = first + row, float(values[row])
        self.count += int(np.count_nonzero(wrong))

    def problem(self) -> str | None:
        """What is wrong with the first one, or None where all are finite."""
        if not self.count:
            return None
        if np.isfinite(self.value):
            shown = f"is {self.value:g} in row {self.row}"
            return f"{shown}, too large for {self.precision.name}; train with dtype FLOAT64"
        shown = "missing (NaN)" if np.isnan(self.value) else "infinite"
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"is {shown} in row {self.row}{more}, counting from 0; every value must be finite"


def wrong_value(values: NDArray[np.generic], precision: Precision) -> str | None:
    """What is wrong with the first value [N] that a training cannot use, or None where all are finite."""
    check = ValueCheck(precision)
    check.add(values)
    return check.problem()


def _is_numeric(columns: Columns, index: int) -> bool:
    return columns.kind(index) not in _OTHERS


def _report_others(columns: Columns, others: Sequence[int], violations: Violations) -> None:
    for index in others[:_MAX_REPORTED]:
        violations.add(
            columns.column_field(index),
            f"feature {columns.names[index]!r} {_OTHERS[columns.kind(index)]}; features must be numbers: "
            'preprocess "auto" would make some of it; else encode it or leave it out',
        )
    if len(others) > _MAX_REPORTED:
        violations.add(columns.field, f"{len(others) - _MAX_REPORTED} more features are text or timestamps")


_OTHERS = {ColumnKind.TEXT: "is text", ColumnKind.TIMESTAMP: "is a timestamp"}
