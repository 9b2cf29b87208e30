"""What is wrong with the rows of a table too large for memory, found piece by piece in one pass over its file.

What is told, of which row, is what :mod:`.features`, :mod:`.targets` and :mod:`.weights` tell of smaller tables.

Legend: n rows of a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import ValueCheck, float_type, numeric_columns, report_values
from epochd_server.data.labels import LabelCheck
from epochd_server.data.selection import Selection
from epochd_server.data.targets import TEXT_TARGET, Targets, are_targets, negative_problem
from epochd_server.data.weights import WeightCheck, are_numbers
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import CLASSIFICATION_LOSSES, Loss, LossKind, Precision


class LargeCheck:
    """Checks features, targets and weights.

    Args:
        columns: The whole table.
        selection: Which of its columns play which role.
        loss: What targets are for; None where that is not known.
        precision: Of the training.
        violations: Takes columns that hold something else than their role needs.
        features: Whether features are columns as they are, and thus to be checked.
    """

    def __init__(
        self,
        columns: Columns,
        selection: Selection,
        loss: Loss | None,
        precision: Precision,
        violations: Violations,
        *,
        features: bool = True,
    ) -> None:
        self._columns, self._selection, self._loss, self._precision = columns, selection, loss, precision
        numeric = numeric_columns(columns, selection.features, violations) if features else []
        self._features = {index: ValueCheck(precision) for index in numeric}
        self._targets = _targets(columns, selection.targets, loss, precision, violations)
        weight = selection.weight
        self._weights = None
        if weight is not None and are_numbers(columns, weight, violations):
            self._weights = WeightCheck()

    def add(self, part: Columns, first: int) -> None:
        """Looks at the rows from ``first`` on."""
        for index, check in self._features.items():
            check.add(part.values(index), first)
        if self._targets is not None:
            self._targets.add(part, first)
        if self._weights is not None and self._selection.weight is not None:
            values = part.values(self._selection.weight)
            with np.errstate(over="ignore"):
                weights: NDArray[np.floating] = values.astype(float_type(self._precision), copy=False)
            self._weights.add(values, weights, first)

    def report(self, outputs: int | None, violations: Violations) -> Targets | None:
        """What the targets are, without their values; all that was found goes to ``violations``.

        Args:
            outputs: Number of outputs that the model was given, or None.
            violations: Takes everything that is wrong.
        """
        columns = self._columns
        problems = {index: check.problem() for index, check in self._features.items()}
        report_values(columns, problems, violations)
        weight = self._selection.weight
        if self._weights is not None and weight is not None and (problem := self._weights.problem()):
            violations.add(columns.column_field(weight), f"weight {columns.names[weight]!r} {problem}")
        return None if self._targets is None else self._targets.report(outputs, violations)


@dataclass(slots=True)
class _Numbers:
    """Targets of a regression."""

    columns: Columns
    checks: dict[int, ValueCheck]
    refuses_negative: bool
    negative: dict[int, tuple[float, int]] = field(default_factory=dict)

    def add(self, part: Columns, first: int) -> None:
        for index, check in self.checks.items():
            values = part.values(index)
            check.add(values, first)
            if not self.refuses_negative or index in self.negative:
                continue
            negative = np.less(values, 0)
            if negative.any():
                row = int(np.argmax(negative))
                self.negative[index] = float(values[row]), first + row

    def report(self, outputs: int | None, violations: Violations) -> Targets | None:
        problems = {index: problem for index, check in self.checks.items() if (problem := check.problem())}
        if not problems:
            problems = {index: negative_problem(*found) for index, found in self.negative.items()}
        for index, problem in problems.items():
            text = f"target {self.columns.names[index]!r} {problem}"
            violations.add(self.columns.column_field(index), text)
        return None if problems else Targets(np.empty(0), None)


@dataclass(slots=True)
class _Labels:
    """The target of a classifier."""

    columns: Columns
    index: int
    loss: Loss
    check: LabelCheck = field(default_factory=LabelCheck)

    def add(self, part: Columns, first: int) -> None:
        self.check.add(part, self.index, first)

    def report(self, outputs: int | None, violations: Violations) -> Targets | None:
        classes = self.check.classes(self.columns, self.index, self.loss, outputs, violations)
        return None if classes is None else Targets(np.empty(0), classes)


def _targets(
    columns: Columns,
    indices: Sequence[int],
    loss: Loss | None,
    precision: Precision,
    violations: Violations,
) -> _Numbers | _Labels | None:
    if loss is None or not are_targets(columns, indices, loss, violations):
        return None
    if loss.kind in CLASSIFICATION_LOSSES:
        return _Labels(columns, indices[0], loss)
    texts = [index for index in indices if columns.is_text(index)]
    for index in texts:
        violations.add(columns.column_field(index), f"target {columns.names[index]!r} {TEXT_TARGET}")
    checks = {index: ValueCheck(precision) for index in indices if index not in texts}
    return _Numbers(columns, checks, refuses_negative=loss.kind is LossKind.POISSON_NLL)
