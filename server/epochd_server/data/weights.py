"""Row weights: a numeric column → how much each row counts.

Legend: N rows.
"""

from __future__ import annotations

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
    field, name = columns.column_field(index), columns.names[index]
    if columns.is_text(index):
        violations.add(field, f"weight {name!r} is text; weights must be numbers")
        return None
    if columns.kind(index) is ColumnKind.TIMESTAMP:
        violations.add(field, f"weight {name!r} is a timestamp; weights must be numbers")
        return None
    values = columns.values(index)
    with np.errstate(over="ignore"):
        weights: NDArray[np.floating] = values.astype(float_type(precision))
    sound = np.isfinite(weights) & (weights >= 0)
    if unusable is not None:
        unusable.add(WEIGHT_NOT_VALID, ~sound)
        return np.where(sound, weights, weights.dtype.type(0))
    problem = _problem(values, weights, sound)
    if problem is not None:
        violations.add(field, f"weight {name!r} {problem}")
        return None
    return weights


def _problem(
    values: NDArray[np.generic], weights: NDArray[np.floating], sound: NDArray[np.bool_]
) -> str | None:
    if sound.all():
        return None if weights.any() else "is 0 in every row: there is nothing to train on"
    row, count = int(np.argmin(sound)), int(np.count_nonzero(~sound))
    more = f" and {count - 1:,} more" if count > 1 else ""
    return f"is {values[row]:g} in row {row}{more}, counting from 0; weights are finite and >= 0"
