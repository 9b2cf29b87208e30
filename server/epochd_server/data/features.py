"""Features: numeric columns → one matrix.

Legend: N rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    numeric = [index for index in indices if _is_numeric(columns, index)]
    _report_others(columns, [index for index in indices if not _is_numeric(columns, index)], violations)
    if unusable is not None:
        for index in numeric:
            unusable.add(FEATURE_NOT_FINITE, not_finite(columns.values(index), precision))
        return
    reported = 0
    for index in numeric:
        problem = wrong_value(columns.values(index), precision)
        if problem is None:
            continue
        reported += 1
        if reported <= _MAX_REPORTED:
            violations.add(columns.column_field(index), f"feature {columns.names[index]!r} {problem}")
    if reported > _MAX_REPORTED:
        violations.add(columns.field, f"{reported - _MAX_REPORTED} more features have unusable values")


def not_finite(values: NDArray[np.generic], precision: Precision) -> NDArray[np.bool_]:
    """Which values [N] are not finite in the precision."""
    with np.errstate(over="ignore"):
        return ~np.isfinite(values.astype(float_type(precision)))


def wrong_value(values: NDArray[np.generic], precision: Precision) -> str | None:
    """What is wrong with the first value [N] that a training cannot use, or None where all are finite."""
    wrong = not_finite(values, precision)
    if not wrong.any():
        return None
    row = int(np.argmax(wrong))
    value = values[row]
    if np.isfinite(value):
        return f"is {value:g} in row {row}, too large for {precision.name}; train with dtype FLOAT64"
    shown = "missing (NaN)" if np.isnan(value) else "infinite"
    count = int(np.count_nonzero(wrong))
    more = f" and {count - 1:,} more" if count > 1 else ""
    return f"is {shown} in row {row}{more}, counting from 0; every value must be finite"


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
