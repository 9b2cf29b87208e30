"""Applying what was fitted: columns → features.

Legend: n rows, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.preprocessing.blocks import (
    Block,
    Numbers,
    StepProblem,
    described,
    fits_kind,
    nothing_of,
)
from epochd_server.data.preprocessing.reading import read_block
from epochd_server.data.preprocessing.steps import Walk
from epochd_server.domain.data import ColumnKind
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import FittedColumn, FittedPreprocessing

Integers = NDArray[np.int64]

CHUNK_ROWS = 65_536
"""So many rows go through the steps at a time: what is in between stays small."""


class Transformer:
    """Makes features of columns.

    Args:
        fitted: What was fitted.
        only: The one column to look at; None: all that have features.
    """

    def __init__(self, fitted: FittedPreprocessing, only: FittedColumn | None = None) -> None:
        self._fitted = fitted
        columns = fitted.columns if only is None else (only,)
        self._columns = [column for column in columns if column.outputs]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(column.name for column in self._columns if column.is_read)

    @property
    def width(self) -> int:
        """Number of features d."""
        return len(self.outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The features' names."""
        return tuple(name for column in self._columns for name in column.outputs)

    def transform(
        self,
        columns: Columns,
        indices: Mapping[str, int],
        out: NDArray[np.floating],
        violations: Violations,
        members: Integers | None = None,
        rows: Integers | None = None,
    ) -> None:
        """Writes the features of rows; they may be NaN, or infinite where ``out`` cannot hold them.

        Args:
            columns: The rows.
            indices: Where each of :attr:`inputs` is among the columns.
            out: [n, d] of the model's precision.
            violations: Takes values that a step can do nothing with, at the columns' fields.
            members: Fleets: the member of each row, [n].
            rows: Which rows, [n]; None: all, as they are.
        """
        start = 0
        for column in self._columns:
            end = start + len(column.outputs)
            part = out[:, start:end]
            start = end
            if not column.is_read:
                part[:] = 0.0
                continue
            index = indices[column.name]
            block = read_block(columns, index)
            try:
                self._transform(column, block if rows is None else block.take(rows), part, members, rows)
            except _AtRow as problem:
                violations.add(columns.column_field(index), f"{column.name!r} {problem}")

    def _transform(
        self,
        column: FittedColumn,
        block: Block,
        out: NDArray[np.floating],
        members: Integers | None,
        numbers: Integers | None,
    ) -> None:
        if not fits_kind(block, column.kind):
            raise _AtRow(f"holds {described(block)}, but in training it held {_KINDS[column.kind]}")
        if isinstance(block, Numbers) and column.kind in (ColumnKind.TEXT, ColumnKind.TIMESTAMP):
            block = nothing_of(column.kind, len(block), column.name)
        for start in range(0, max(len(block), 1), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            walk = Walk(column.name, block.take(rows), _part(members, rows), self._fitted.statistics)
            with np.errstate(over="ignore"):
                _place(column, _walked(walk, column, start, numbers), out[rows])


class _AtRow(Exception):
    """A StepProblem, told with the row's number in the whole table."""


def _walked(
    walk: Walk, column: FittedColumn, first_row: int, numbers: Integers | None
) -> NDArray[np.float64]:
    try:
        for fitted in column.steps:
            walk.go(fitted)
        return walk.arrive().values
    except StepProblem as problem:
        raise _AtRow(problem.told(first_row, numbers)) from None


def _place(column: FittedColumn, made: NDArray[np.float64], out: NDArray[np.floating]) -> None:
    """Writes what a column's steps made to the features that are theirs, and 0 to the others."""
    if column.places is None:
        out[:] = made
        return
    out[:] = 0.0
    out[:, list(column.places)] = made


def makes_its_features(fitted: FittedPreprocessing, statistics: NDArray[np.float64] | None) -> bool:
    """Whether the steps of every column can be walked, and make as many features as the column says.

    For what was not fitted here, but read from a file.

    Args:
        fitted: What is said to have been fitted, with its folds.
        statistics: float64 [K, S]: the members' own numbers; None where no member has any.
    """
    return all(
        _makes_its_features(column, statistics)
        for steps in (fitted, *fitted.folds)
        for column in steps.columns
        if column.is_read
    )


def _makes_its_features(column: FittedColumn, statistics: NDArray[np.float64] | None) -> bool:
    """No rows at all go through every step as any number of them would."""
    if column.kind in (ColumnKind.TEXT, ColumnKind.TIMESTAMP):
        nothing = nothing_of(column.kind, 0, column.name)
    else:
        nothing = Numbers(np.empty((0, 1)), (column.name,))
    walk = Walk(column.name, nothing, np.empty(0, np.int64), statistics)
    out = np.empty((0, len(column.outputs)))
    try:
        for fitted in column.steps:
            walk.go(fitted)
        made = walk.arrive().values
        _place(column, made, out)
    except (StepProblem, ValueError, IndexError, TypeError):
        return False
    width: int = made.shape[1]
    return width == len(column.outputs if column.places is None else column.places)


def with_statistics(
    fitted: FittedPreprocessing, statistics: NDArray[np.float64] | None
) -> FittedPreprocessing:
    """What was fitted, with the members' own numbers, which are kept elsewhere."""
    return replace(fitted, statistics=statistics)


def positions(names: Sequence[str]) -> dict[str, int]:
    """Where each column is."""
    return {name: index for index, name in enumerate(names)}


def _part(members: Integers | None, rows: slice) -> Integers | None:
    return None if members is None else members[rows]


_KINDS = {
    ColumnKind.NUMBER: "numbers",
    ColumnKind.INTEGER: "numbers",
    ColumnKind.BOOLEAN: "numbers",
    ColumnKind.TEXT: "text",
    ColumnKind.TIMESTAMP: "timestamps",
}
