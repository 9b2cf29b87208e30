"""Which of a request's rows are held out, and what is wrong with that.

Legend: N rows, K members, F folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns, TensorColumns
from epochd_server.data.fitness import NO_WEIGHT, members_with_two_classes
from epochd_server.data.grouping import Assignment
from epochd_server.data.selection import Selection
from epochd_server.data.splitting import Traits, fold_numbers, held_out_rows, trained_rows, units
from epochd_server.domain.errors import Violations
from epochd_server.domain.large_tables import DrawnRows, RowSize
from epochd_server.domain.validation import Folds, HoldOut, Split

NO_VALIDATION_ROWS = "NO_VALIDATION_ROWS"
ONE_CLASS_LEFT = "ONE_CLASS_LEFT"
_SIDES = ("row that is trained on", "row that is held out")

Rows = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldRows:
    """How rows are split, in the order of the table.

    Attributes:
        held: Bool [N], the rows that are held out; None where none are, or folds in turn.
        folds: int16 [N], the fold of each row; None where there are none.
        split: How rows were dealt to folds.
        drawn: How rows are held out of a table too large for memory; None otherwise.
        unfit: Members that cannot be trained without the rows that are held out → reason in UPPER_SNAKE.
    """

    held: Rows | None = None
    folds: NDArray[np.int16] | None = None
    split: Split = Split.RANDOM
    drawn: DrawnRows | None = None
    unfit: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many rows are held out of all members; 0 where folds are in turn."""
        if self.drawn is not None:
            return self.drawn.count
        return 0 if self.held is None else int(np.count_nonzero(self.held))

    def trained_in_folds(self) -> Iterator[Rows]:
        """Of each fold, bool [N]: the rows that its member is trained on."""
        if self.folds is not None:
            for fold in range(int(self.folds.max()) + 1):
                yield trained_rows(self.folds, fold, self.split)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splitter:
    """Splits rows.

    Attributes:
        columns: The rows; at least one.
        selection: Which columns play which role.
        labels: For classifiers the class of each row, [N] or [N, 1]; None for regressions.
        weights: [N], or None where all rows count alike.
        assignment: The member of each row; None for one model.
        seed: The training's.
        size: How wide rows are.
    """

    columns: Columns
    selection: Selection
    labels: NDArray[np.generic] | None
    weights: NDArray[np.floating] | None
    assignment: Assignment | None
    seed: int
    size: RowSize

    def split(self, rows: HoldOut | Folds, violations: Violations) -> HeldRows:
        """The split; what is wrong with it goes to ``violations``, or of a fleet takes out members."""
        before = len(violations.found)
        traits = self._traits(rows, violations)
        if traits is None or len(violations.found) > before:
            return HeldRows()
        if isinstance(rows, Folds):
            return HeldRows(folds=self._folds(rows, traits, violations), split=rows.split)
        held = held_out_rows(rows, traits, self.seed)
        if self.assignment is not None:
            return HeldRows(held=held, unfit=self._unfit(held, self.assignment))
        if not held.any():
            what = "1 group" if rows.split is Split.GROUP else "1 row"
            violations.add("validation.fraction", f"there is {what}: none can be held out")
        else:
            self._check_sides(~held, held, "validation.fraction", "", violations)
        return HeldRows(held=held)

    def _traits(self, rows: HoldOut | Folds, violations: Violations) -> Traits | None:
        count = self.columns.rows
        members = np.zeros(count, np.int64) if self.assignment is None else self.assignment.members
        size = self.size if isinstance(rows, HoldOut) else None
        if rows.split is Split.RANDOM:
            return Traits(members, size=size)
        if rows.split is Split.STRATIFIED:
            labels = None if self.labels is None else self.labels.reshape(-1).astype(np.int64)
            return None if labels is None else Traits(members, labels, size=size)
        if isinstance(self.columns, TensorColumns):
            problem = "is for tables and datasets; tensors have no named columns"
            violations.add(f"validation.split.{rows.split.value}_column", problem)
            return None
        if self.selection.split is None:
            return None
        codes = _codes(self.columns, self.selection.split, violations)
        return None if codes is None else Traits(members, codes)

    def _folds(self, rows: Folds, traits: Traits, violations: Violations) -> NDArray[np.int16] | None:
        there = int(units(rows.split, traits)[0])
        needed = rows.count + 1 if rows.split is Split.TIME else rows.count
        if there < needed:
            what = "groups" if rows.split is Split.GROUP else "rows"
            problem = f"is {rows.count}, which takes {needed} {what} at least, but there are {there:,}"
            violations.add("sweep.folds", problem)
            return None
        numbers = fold_numbers(rows, traits, self.seed)
        for fold in range(rows.count):
            trained = trained_rows(numbers, fold, rows.split)
            self._check_sides(trained, numbers == fold, "sweep.folds", f"of fold {fold}, ", violations)
        return numbers

    def _check_sides(self, trained: Rows, held: Rows, path: str, where: str, violations: Violations) -> None:
        """Reports a side of one model's split that has no weight, or training rows of one class."""
        for side, name in zip((trained, held), _SIDES, strict=True):
            if self.weights is not None and not self.weights[side].any():
                violations.add(path, f"{where}no {name} has a weight above 0")
                return
        if self.labels is None:
            return
        counted = trained if self.weights is None else trained & (self.weights > 0)
        left = self.labels.reshape(-1)[counted]
        if not (left != left[0]).any():
            violations.add(path, f"{where}the rows that are not held out have one class only")

    def _unfit(self, held: Rows, assignment: Assignment) -> dict[int, str]:
        counted = np.ones(len(held), np.bool_) if self.weights is None else self.weights > 0
        trained = ~held & counted
        reasons = [
            (NO_VALIDATION_ROWS, ~assignment.where(held & counted)),
            (NO_WEIGHT, ~assignment.where(trained)),
        ]
        if self.labels is not None:
            two = members_with_two_classes(assignment, self.labels.reshape(-1), trained)
            reasons.append((ONE_CLASS_LEFT, ~two))
        unfit: dict[int, str] = {}
        for reason, members in reasons:
            for member in np.flatnonzero(members).tolist():
                unfit.setdefault(member, reason)
        return unfit


def _codes(columns: Columns, index: int, violations: Violations) -> NDArray[np.int64] | None:
    """A column's values as ranks [N]; None, and a violation, where one is missing."""
    if columns.is_text(index):
        _, codes = columns.codes(index)
        missing = codes < 0
    else:
        values = columns.values(index)
        missing = np.not_equal(values, values)  # NaN and NaT
        codes = np.unique(values, return_inverse=True)[1].astype(np.int64)
    if missing.any():
        row, name = int(np.argmax(missing)), columns.names[index]
        problem = f"{name!r} is missing in row {row}, counting from 0; every row needs a value to be split by"
        violations.add(columns.column_field(index), problem)
        return None
    return codes
