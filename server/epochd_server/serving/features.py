"""From the rows of a request to what a model reads.

Legend: n rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import Table, quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.models import VersionCard


class FeatureMatcher:
    """Brings rows into the order and precision that a model was trained with.

    Missing values stay NaN, and numbers too large for the precision become infinite: what the model makes of
    them is its answer.

    Args:
        card: Of the model.
    """

    def __init__(self, card: VersionCard) -> None:
        self._names = card.feature_columns
        self._positions = {name: position for position, name in enumerate(card.feature_columns)}
        self._dtype = np.dtype(card.spec.precision.value)
        self._unread = card.role_columns

    def match(
        self,
        rows: Table | NDArray[np.generic],
        violations: Violations,
        *,
        keys: frozenset[str] = frozenset(),
    ) -> NDArray[np.floating] | None:
        """The features [n, d], C-contiguous and writable; or None, and all that is wrong in ``violations``.

        Args:
            rows: A table with the model's columns in any order, or a tensor [n, d] or [d] in their order. A table
                may still have the columns that were targets and weights.
            violations: Gets paths as in PredictRequest.
            keys: Further columns that a table may have, which are not looked at.
        """
        if isinstance(rows, Table):
            return self._from_table(rows, violations, keys)
        return self._from_tensor(rows, violations)

    def _from_tensor(self, rows: NDArray[np.generic], violations: Violations) -> NDArray[np.floating] | None:
        width = len(self._names)
        if rows.ndim not in (1, 2) or rows.shape[-1] != width:
            features = f"the model's features are {quoted(self._names)}"
            violations.add(
                "tensor.shape", f"must be [rows, {width}] or [{width}], is {list(rows.shape)}; {features}"
            )
            return None
        return self._converted(rows if rows.ndim == 2 else rows.reshape(1, width))

    def _converted(self, values: NDArray[Any]) -> NDArray[np.floating]:
        if values.dtype == self._dtype:
            return values if values.flags.carray else values.copy()
        with np.errstate(over="ignore"):
            return np.array(values, self._dtype, order="C")

    def _from_table(
        self, rows: Table, violations: Violations, keys: frozenset[str]
    ) -> NDArray[np.floating] | None:
        faults = len(violations.found)
        if rows.names != self._names:
            self._check_names(rows, violations, keys)
        for index, column in enumerate(rows.columns):
            if column.is_text and column.name in self._positions:
                violations.add(
                    f"table.columns[{index}]", f"{column.name!r} holds text; the model reads numbers there"
                )
        if len(violations.found) > faults:
            return None
        features = np.empty((rows.rows, len(self._names)), self._dtype)
        with np.errstate(over="ignore"):
            for column in rows.columns:
                if column.name in self._positions:
                    features[:, self._positions[column.name]] = column.values
        return features

    def _check_names(self, rows: Table, violations: Violations, keys: frozenset[str]) -> None:
        given = set(rows.names)
        missing = [name for name in self._names if name not in given]
        if missing:
            violations.add(
                "table.columns", f"lacks {quoted(missing)}; the model's features are {quoted(self._names)}"
            )
        for index, name in enumerate(rows.names):
            if name not in self._positions and name not in keys and name not in self._unread:
                violations.add(
                    f"table.columns[{index}]", f"{name!r} is no feature of the model; leave it out"
                )
