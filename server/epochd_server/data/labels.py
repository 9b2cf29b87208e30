"""Labels: the classes of a column, and what is wrong with labels that are none.

Legend: n labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.domain.data import Classes, quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Loss, LossKind

_TOO_LARGE = 2.0**63
_MOST_DISTINCT = 100_000


def find_classes(
    columns: Columns,
    index: int,
    values: NDArray[np.generic],
    loss: Loss,
    outputs: int | None,
    violations: Violations,
    rows: NDArray[np.int64] | None = None,
) -> Classes | None:
    """The classes of a column of labels; None, and a violation, where they are none.

    Args:
        columns: Where it is.
        index: Which it is.
        values: Its labels [n].
        loss: What they are for.
        outputs: Number of outputs that the model was given, or None.
        violations: Takes what is wrong.
        rows: The row of each label [n], for messages; None: they are those of all rows.
    """
    found: Classes | str
    at = _Rows(rows)
    if columns.is_text(index):
        found = _text_classes(values, loss, outputs, at)
    elif loss.kind is LossKind.BCE_WITH_LOGITS:
        found = _binary_classes(values, at)
    else:
        found = _integer_classes(values, outputs, at)
    if isinstance(found, str):
        violations.add(columns.column_field(index), f"target {columns.names[index]!r} {found}")
        return None
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Which row of a table each label is of."""

    numbers: NDArray[np.int64] | None

    def __getitem__(self, place: int) -> int:
        return place if self.numbers is None else int(self.numbers[place])


def _text_classes(values: NDArray[np.generic], loss: Loss, outputs: int | None, at: _Rows) -> Classes | str:
    distinct = set(values.tolist())
    if None in distinct:
        return f"is missing in row {at[values.tolist().index(None)]}, counting from 0"
    classes = tuple(sorted(distinct))
    if len(classes) < 2:
        return f"has one class only, {quoted(classes)}; at least two are needed"
    if loss.kind is LossKind.BCE_WITH_LOGITS and len(classes) > 2:
        return f"has {len(classes)} classes ({quoted(classes)}), but bce_with_logits takes two"
    if loss.kind is LossKind.CROSS_ENTROPY and outputs is not None and outputs != len(classes):
        return f"has {len(classes)} classes ({quoted(classes)}), but the model has {outputs} outputs"
    return classes


def _binary_classes(values: NDArray[np.generic], at: _Rows) -> Classes | str:
    zeros, ones = values == 0, values == 1
    sound = zeros | ones
    if not sound.all():
        row = int(np.argmin(sound))
        return f"is {values[row]:g} in row {at[row]}, counting from 0; bce_with_logits takes labels 0 and 1"
    if zeros.all() or ones.all():
        return f"has one class only, {int(values[0])}; at least two are needed"
    return (0, 1)


def _integer_classes(values: NDArray[np.generic], outputs: int | None, at: _Rows) -> Classes | str:
    if values.dtype.kind == "f":
        # NaN and infinity fail the comparisons.
        sound = (np.floor(values) == values) & (np.abs(values) < _TOO_LARGE)
        if not sound.all():
            row = int(np.argmin(sound))
            shown = f"is {values[row]:g} in row {at[row]}, counting from 0"
            return f"{shown}; class labels are whole numbers or text"
    labels = values.astype(np.int64)
    if outputs is not None and outputs >= 2:
        return _given_classes(labels, outputs, at)
    classes = tuple(np.unique(labels).tolist())
    if len(classes) < 2:
        return f"has one class only, {classes[0]}; at least two are needed"
    return classes


def _given_classes(labels: NDArray[np.int64], outputs: int, at: _Rows) -> Classes | str:
    """0 … outputs − 1, whether all of them occur or not, as in PyTorch."""
    sound = (labels >= 0) & (labels < outputs)
    if sound.all():
        return tuple(range(outputs))
    row = int(np.argmin(sound))
    return (
        f"is {labels[row]} in row {at[row]}, counting from 0; with {outputs} outputs labels are 0 to "
        f"{outputs - 1}; leave out_features unset to have the classes taken from the labels"
    )


@dataclass(slots=True)
class LabelCheck:
    """Collects the distinct labels of a column, some rows after the others.

    Attributes:
        too_many: Whether there are more than any model has classes; no further ones are taken then.
    """

    too_many: bool = False
    _rows: dict[object, int] = field(default_factory=dict)
    _dtype: np.dtype[np.generic] | None = None

    def add(self, columns: Columns, index: int, first: int) -> None:
        """Takes the labels of the rows from ``first`` on."""
        if self.too_many:
            return
        labels, places = _distinct(columns, index)
        self._dtype = labels.dtype if self._dtype is None else np.result_type(self._dtype, labels.dtype)
        for label, place in zip(labels.tolist(), places.tolist(), strict=True):
            # NaN is not equal to itself, and thus no key
            self._rows.setdefault(None if label != label else label, first + place)
        self.too_many = len(self._rows) > _MOST_DISTINCT

    def classes(
        self, columns: Columns, index: int, loss: Loss, outputs: int | None, violations: Violations
    ) -> Classes | None:
        """What :func:`find_classes` says of all labels; there is at least one."""
        if self.too_many:
            problem = f"target {columns.names[index]!r} has more than {_MOST_DISTINCT:,} classes"
            violations.add(columns.column_field(index), problem)
            return None
        found = sorted(self._rows.items(), key=lambda item: item[1])
        is_text = self._dtype == np.dtype(object)
        labels = np.array(
            [np.nan if label is None and not is_text else label for label, _ in found], self._dtype
        )
        rows = np.array([row for _, row in found], np.int64)
        return find_classes(columns, index, labels, loss, outputs, violations, rows)


def _distinct(columns: Columns, index: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Distinct labels, None or NaN for missing ones, and the first row of each."""
    if not columns.is_text(index):
        labels, places = np.unique(columns.values(index), return_index=True)
        return labels, places.astype(np.int64)
    texts, codes = columns.codes(index)
    used, places = np.unique(codes, return_index=True)
    return np.append(texts, np.array([None], dtype=object))[used], places.astype(np.int64)
