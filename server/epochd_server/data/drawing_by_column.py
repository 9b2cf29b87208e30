"""Large tables split by a column, by time or by group: what is held out is found in passes over the column.

The rows are those that would be held out of a table in memory; see :mod:`.splitting`. Numbers are compared as float64.

Legend: N rows, n of a piece, G groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns, PartedColumns
from epochd_server.data.preprocessing.selecting import StreamedValues
from epochd_server.data.splitting import Traits, held_out_rows, shares
from epochd_server.domain.errors import Violations
from epochd_server.domain.large_tables import DrawnRows, RowSize, TimeBound
from epochd_server.domain.validation import HoldOut, Split

_MOST_DISTINCT = 1_000_000
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnDraw:
    """Finds the rows that a column's values hold out.

    Attributes:
        columns: All rows; two at least.
        index: The column.
        hold_out: TIME or GROUP.
        seed: The training's.
        size: How wide rows are.
    """

    columns: PartedColumns
    index: int
    hold_out: HoldOut
    seed: int
    size: RowSize

    def draw(self, violations: Violations) -> DrawnRows | None:
        """What is held out; None, and a violation, where the column cannot decide it."""
        if (row := self._missing_row()) is not None:
            problem = f"has no value in row {row}, counting from 0; every row needs one to be split by"
            self._refuse(problem, violations)
            return None
        if self.hold_out.split is Split.GROUP:
            return self._by_group(violations)
        return self._by_time(violations)

    def _by_time(self, violations: Violations) -> DrawnRows | None:
        held = int(shares(self.hold_out.fraction, np.array([self.columns.rows]))[0])
        place = self.columns.rows - held
        value: str | float
        if self.columns.is_text(self.index):
            counted = self._counted(violations)
            if counted is None:
                return None
            texts = sorted(counted)
            ends = np.cumsum([counted[text] for text in texts])
            value = str(texts[int(np.searchsorted(ends, place, "right"))])
        else:
            value = StreamedValues(lambda: ((values, None) for values in self._numbers())).ranked([place])[0]
        return self._drawn(held, bound=TimeBound(value, self._first_row(value, place)))

    def _first_row(self, value: str | float, place: int) -> int:
        """The first held-out one of the rows with the value of a place in the order of time."""
        pieces = self.columns.parts(self.size.piece_rows)
        left = place - sum(int(np.count_nonzero(_compared(part, self.index, value)[0])) for _, part in pieces)
        for first, part in self.columns.parts(self.size.piece_rows):
            same = np.flatnonzero(_compared(part, self.index, value)[1])
            if left < len(same):
                return first + int(same[left])
            left -= len(same)
        raise AssertionError("unreachable: the value is that of the place")

    def _by_group(self, violations: Violations) -> DrawnRows | None:
        counted = self._counted(violations)
        if counted is None:
            return None
        groups = sorted(counted)
        traits = Traits(np.zeros(len(groups), np.int64), np.arange(len(groups)))
        chosen = held_out_rows(self.hold_out, traits, self.seed)
        held = [group for group, is_held in zip(groups, chosen.tolist(), strict=True) if is_held]
        if not held:
            violations.add("validation.fraction", "there is 1 group: none can be held out")
            return None
        count = sum(counted[group] for group in held)
        if self.columns.is_text(self.index):
            return self._drawn(count, groups=frozenset(map(str, held)))
        return self._drawn(count, groups=np.array(held, np.float64))

    def _drawn(
        self,
        count: int,
        bound: TimeBound | None = None,
        groups: frozenset[str] | NDArray[np.float64] | None = None,
    ) -> DrawnRows:
        return DrawnRows(
            hold_out=self.hold_out,
            seed=self.seed,
            piece_rows=self.size.piece_rows,
            count=count,
            bound=bound,
            groups=groups,
        )

    def _counted(self, violations: Violations) -> Counter[str | float] | None:
        """How often each value occurs; None, and a violation, where there are too many to be counted."""
        counted: Counter[str | float] = Counter()
        for _, part in self.columns.parts(self.size.piece_rows):
            if part.is_text(self.index):
                texts, codes = part.codes(self.index)
                counts = np.bincount(codes, minlength=len(texts))
            else:
                texts, counts = np.unique(_numbers_of(part, self.index), return_counts=True)
            found = zip(texts.tolist(), counts.tolist(), strict=True)
            counted.update({value: count for value, count in found if count})
            if len(counted) > _MOST_DISTINCT:
                self._refuse(
                    f"has more than {_MOST_DISTINCT:,} distinct values, too many to be counted", violations
                )
                return None
        return counted

    def _missing_row(self) -> int | None:
        """The first row without a value."""
        for first, part in self.columns.parts(self.size.piece_rows):
            if part.is_text(self.index):
                missing = part.codes(self.index)[1] < 0
            else:
                missing = ~np.isfinite(_numbers_of(part, self.index))
            if missing.any():
                return first + int(np.argmax(missing))
        return None

    def _numbers(self) -> Iterator[NDArray[np.float64]]:
        for _, part in self.columns.parts(self.size.piece_rows):
            yield _numbers_of(part, self.index)

    def _refuse(self, problem: str, violations: Violations) -> None:
        violations.add(self.columns.column_field(self.index), f"{self.columns.names[self.index]!r} {problem}")


def later_rows(bound: TimeBound, part: Columns, index: int, first: int) -> Flags:
    """Bool [n]: the rows of a piece, the first of which has that place, that a split by time holds out."""
    below, same = _compared(part, index, bound.value)
    return ~below & (~same | (first + np.arange(part.rows) >= bound.row))


def rows_of_groups(groups: frozenset[str] | NDArray[np.float64], part: Columns, index: int) -> Flags:
    """Bool [n]: the rows of a piece that are of some groups."""
    if not isinstance(groups, frozenset):
        return np.isin(_numbers_of(part, index), groups)
    texts, codes = part.codes(index)
    return np.array([text in groups for text in texts.tolist()], np.bool_)[codes]


def _compared(part: Columns, index: int, value: str | float) -> tuple[Flags, Flags]:
    """Bool [n] each: rows with a value below another, and rows with the same."""
    if isinstance(value, float):
        numbers = _numbers_of(part, index)
        return numbers < value, numbers == value
    texts, codes = part.codes(index)
    below = np.array([text < value for text in texts.tolist()], np.bool_)
    return below[codes], np.asarray(texts == value)[codes]


def _numbers_of(part: Columns, index: int) -> NDArray[np.float64]:
    """Numbers or times [n] as float64; NaN where they are missing."""
    values = part.values(index)
    if values.dtype.kind != "M":
        return values.astype(np.float64)
    micros = values.astype("M8[us]").view(np.int64).astype(np.float64)
    return np.where(np.isnat(values), np.nan, micros)
