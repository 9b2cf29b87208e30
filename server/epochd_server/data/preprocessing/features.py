"""The features of a training whose columns are preprocessed.

Legend: N rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import float_type, wrong_value
from epochd_server.data.fitness import FEATURE_NOT_FINITE, UnusableRows
from epochd_server.data.preprocessing.transforming import Transformer, positions
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.specs import Precision

_MAX_REPORTED = 20


def prepare_transformed(
    fitted: FittedPreprocessing,
    columns: Columns,
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None = None,
    members: NDArray[np.int64] | None = None,
) -> NDArray[np.floating] | None:
    """The matrix [N, d] of what columns become, C-contiguous.

    Args:
        fitted: What they go through.
        columns: Where they are.
        precision: The matrix's type.
        violations: Takes values that a step can do nothing with and, for one model, features that are not finite.
        unusable: Fleets: takes the rows with such features instead.
        members: Fleets: the member of each row, [N].

    Returns:
        None where there are violations.
    """
    matrix = np.empty((columns.rows, len(fitted.outputs)), float_type(precision))
    before, start = len(violations.found), 0
    for transformer in _by_column(fitted):
        part = matrix[:, start : start + transformer.width]
        _prepare(transformer, columns, part, violations, unusable, members)
        start += transformer.width
    return matrix if len(violations.found) == before else None


def check_transformed(
    fitted: FittedPreprocessing,
    columns: Columns,
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None = None,
    members: NDArray[np.int64] | None = None,
) -> None:
    """Reports what :func:`prepare_transformed` would, in the memory of one column's features."""
    for transformer in _by_column(fitted):
        part = np.empty((columns.rows, transformer.width), float_type(precision))
        _prepare(transformer, columns, part, violations, unusable, members)


def _by_column(fitted: FittedPreprocessing) -> Sequence[Transformer]:
    return [Transformer(fitted, only=column) for column in fitted.columns if column.outputs]


def _prepare(
    transformer: Transformer,
    columns: Columns,
    part: NDArray[np.floating],
    violations: Violations,
    unusable: UnusableRows | None,
    members: NDArray[np.int64] | None,
) -> None:
    before = len(violations.found)
    transformer.transform(columns, positions(columns.names), part, violations, members)
    if len(violations.found) > before:
        return
    finite = np.isfinite(part)
    if finite.all():
        return
    if unusable is not None:
        unusable.add(FEATURE_NOT_FINITE, np.asarray(~finite.all(axis=1)))
        return
    index = columns.names.index(transformer.inputs[0])
    for position in np.flatnonzero(~finite.all(axis=0)).tolist()[:_MAX_REPORTED]:
        problem = wrong_value(part[:, position], _precision(part))
        name = transformer.outputs[position]
        violations.add(columns.column_field(index), f"feature {name!r} {problem} (impute what is missing)")


def _precision(part: NDArray[np.floating]) -> Precision:
    return Precision(part.dtype.name)
