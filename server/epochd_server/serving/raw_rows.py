"""From rows as they are to what a model with preprocessing reads.

Legend: n rows, d features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import TableColumns
from epochd_server.data.preprocessing.transforming import Transformer, positions
from epochd_server.domain.data import Column, ColumnKind, Table, quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.models import VersionCard
from epochd_server.domain.preprocessing import FittedPreprocessing

_NUMERIC = frozenset({ColumnKind.NUMBER, ColumnKind.INTEGER, ColumnKind.BOOLEAN})


class RawRows(TableColumns):
    """The columns of a prediction's rows, with paths as in PredictRequest.

    Args:
        table: The rows.
        is_tensor: Whether they came as a tensor.
    """

    def __init__(self, table: Table, *, is_tensor: bool) -> None:
        super().__init__(table)
        self._is_tensor = is_tensor

    def column_field(self, index: int) -> str:
        """Path of a column in a PredictRequest."""
        return "tensor" if self._is_tensor else f"table.columns[{index}]"


class RawMatcher:
    """Makes features of rows that have the columns of the training.

    Args:
        card: Of the model.
        fitted: What its columns go through.
        statistics: Fleets: what its members learned by themselves; None where they did not.
    """

    def __init__(
        self, card: VersionCard, fitted: FittedPreprocessing, statistics: NDArray[np.float64] | None
    ) -> None:
        self._transformer = Transformer(replace(fitted, statistics=statistics))
        self._folds = [Transformer(fold) for fold in fitted.folds]
        self._inputs = fitted.inputs
        self._are_numeric = all(column.kind in _NUMERIC for column in fitted.columns if column.outputs)
        self._unread = card.role_columns | {column.name for column in fitted.columns}
        self._dtype = np.dtype(card.spec.precision.value)

    def match(
        self,
        rows: Table | NDArray[np.generic],
        violations: Violations,
        *,
        keys: frozenset[str] = frozenset(),
    ) -> RawRows | None:
        """The columns of some rows; None, and all that is wrong in ``violations``, where they are not the model's.

        Args:
            rows: A table with the columns that have features, in any order; or a tensor of those, in their order,
                where all of them are numbers.
            violations: Gets paths as in PredictRequest.
            keys: Further columns that a table may have, which are not looked at.
        """
        if not isinstance(rows, Table):
            return self._from_tensor(rows, violations)
        before = len(violations.found)
        given = set(rows.names)
        missing = [name for name in self._inputs if name not in given]
        if missing:
            reads = f"the model reads {quoted(self._inputs)}"
            violations.add("table.columns", f"lacks {quoted(missing)}; {reads}")
        for index, name in enumerate(rows.names):
            if name not in self._unread and name not in keys:
                violations.add(
                    f"table.columns[{index}]", f"{name!r} is nothing the model reads; leave it out"
                )
        return RawRows(rows, is_tensor=False) if len(violations.found) == before else None

    def features(
        self, rows: RawRows, violations: Violations, members: NDArray[np.int64] | None = None
    ) -> NDArray[np.floating]:
        """The features [n, d] of rows that :meth:`match` found nothing wrong with.

        Args:
            rows: The rows.
            violations: Takes values that a step can do nothing with, such as an unseen category.
            members: Fleets: the member of each row, [n].
        """
        features = np.empty((rows.rows, self._transformer.width), self._dtype)
        indices = positions(rows.names)
        if not self._folds or members is None:
            self._transformer.transform(rows, indices, features, violations, members)
            return features
        folds = members % len(self._folds)
        for fold in np.unique(folds).tolist():
            chosen = np.flatnonzero(folds == fold)
            part = np.empty((len(chosen), self._transformer.width), self._dtype)
            self._folds[fold].transform(rows, indices, part, violations, rows=chosen)
            features[chosen] = part
        return features

    def _from_tensor(self, rows: NDArray[np.generic], violations: Violations) -> RawRows | None:
        width = len(self._inputs)
        reads = f"the model reads {quoted(self._inputs)}"
        if not self._are_numeric:
            violations.add("rows", f"must be a table: {reads}, which are not all numbers")
            return None
        if rows.ndim not in (1, 2) or rows.shape[-1] != width:
            shape = f"must be [rows, {width}] or [{width}], is {list(rows.shape)}"
            violations.add("tensor.shape", f"{shape}; {reads}")
            return None
        matrix = rows.reshape(-1, width)
        columns = (Column(name, matrix[:, index]) for index, name in enumerate(self._inputs))
        return RawRows(Table(tuple(columns)), is_tensor=True)
