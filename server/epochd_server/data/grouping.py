"""Fleets: which member each row belongs to, by the values of key columns.

Everything is done for all rows at once; nothing here is a loop over rows or keys.

Legend: N rows, K members, C distinct values of one column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.domain.data import ColumnKind, quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Key, Keys

MAX_KEY_TEXT = 1_024
"""Characters of a text key: keys are sent along with losses and predictions."""

Integers = NDArray[np.int64]
_SPARE = 65_536
"""Integers that span no more than 4 N + so many values are counted in a table instead of hashed."""
_MAX_CODE = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The member of each row.

    Attributes:
        keys: The K members' keys, ascending.
        members: int64 [N], from 0 to K − 1.
    """

    keys: Keys
    members: Integers

    def sizes(self) -> Integers:
        """int64 [K]: rows of each member, at least 1."""
        return np.bincount(self.members, minlength=len(self.keys))

    def offsets(self) -> Integers:
        """int64 [K + 1]: where each member's rows begin once they are sorted by member."""
        return np.concatenate([[0], np.cumsum(self.sizes())]).astype(np.int64)

    def order(self) -> Integers | None:
        """int64 [N]: the rows sorted by member, in their own order within each; None where they are already."""
        members = self.members
        if (members[1:] >= members[:-1]).all():
            return None
        rows = len(members)
        if len(self.keys) * rows >= _MAX_CODE:
            return np.argsort(members, kind="stable")
        # Sorting distinct numbers is stable, and several times faster than a stable sort of repeated ones.
        packed = members * rows
        packed += np.arange(rows)
        packed.sort()
        packed %= rows
        return packed

    def where(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bool [K]: members that have one of some rows, bool [N]."""
        found = np.zeros(len(self.keys), np.bool_)
        found[self.members[rows]] = True
        return found


def assign_members(
    columns: Columns, indices: Sequence[int], max_members: int, violations: Violations
) -> Assignment | None:
    """The member of each row: one for each distinct combination of the values in some columns.

    Args:
        columns: Where they are; at least one row.
        indices: The key columns, in the order of keys.
        max_members: How many members there may be.
        violations: Takes key columns that are neither text nor integers, missing values, and too many members.

    Returns:
        None where anything is wrong.
    """
    before = len(violations.found)
    ranked = [_rank(columns, index, violations) for index in indices]
    sound = [column for column in ranked if column is not None]
    if len(violations.found) > before or not sound:
        return None
    names = tuple(columns.names[index] for index in indices)
    distinct, members = _combine(sound)
    if len(distinct[0]) > max_members:
        problem = (
            f"{quoted(names)} would make {len(distinct[0]):,} members, at most {max_members:,} are allowed"
        )
        violations.add("data.group_columns", problem)
        return None
    return Assignment(Keys(names, tuple(distinct)), members)


def find_member(keys: Keys, key: Key) -> int | None:
    """The position of a key of the columns' types, or None where there is no such member."""
    low, high = 0, len(keys)
    for column, value in zip(keys.columns, key, strict=True):
        part = column[low:high]
        # An array of texts has no common dtype with a single one.
        sought = np.array([value], dtype=column.dtype)
        low, high = (
            low + int(np.searchsorted(part, sought, side="left")[0]),
            low + int(np.searchsorted(part, sought, side="right")[0]),
        )
    return low if low < high else None


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """A key column as numbers: its C distinct values, ascending, and each row's position among them [N]."""

    distinct: NDArray[np.generic]
    codes: Integers


def _rank(columns: Columns, index: int, violations: Violations) -> _Ranked | None:
    field, name = columns.column_field(index), columns.names[index]
    if columns.is_text(index):
        return _rank_texts(columns, index, violations)
    if not columns.is_integer(index):
        held = "timestamps" if columns.kind(index) is ColumnKind.TIMESTAMP else "floating-point numbers"
        problem = f"key {name!r} holds {held}; keys are text or integers"
        violations.add(field, problem)
        return None
    values = columns.values(index)
    if values.dtype.kind == "f":  # integers with missing values
        _report_missing(field, name, np.isnan(values), violations)
        return None
    return _Ranked(*_dense(values.astype(np.int64, copy=False)))


def _rank_texts(columns: Columns, index: int, violations: Violations) -> _Ranked | None:
    texts, codes = columns.codes(index)
    missing = codes < 0
    if missing.any():
        _report_missing(columns.column_field(index), columns.names[index], missing, violations)
        return None
    longest = max(map(len, texts.tolist()))
    if longest > MAX_KEY_TEXT:
        problem = f"has a text of {longest:,} characters, at most {MAX_KEY_TEXT:,} are allowed"
        violations.add(columns.column_field(index), f"key {columns.names[index]!r} {problem}")
        return None
    return _Ranked(texts, codes)


def _report_missing(field: str, name: str, missing: NDArray[np.bool_], violations: Violations) -> None:
    row, count = int(np.argmax(missing)), int(np.count_nonzero(missing))
    more = f" and {count - 1:,} more" if count > 1 else ""
    violations.add(
        field, f"key {name!r} is missing in row {row}{more}, counting from 0; every row needs a key"
    )


def _combine(columns: Sequence[_Ranked]) -> tuple[list[NDArray[np.generic]], Integers]:
    """Key columns [K] of the combinations that occur, ascending, and each row's position among them [N]."""
    picks = [np.arange(len(columns[0].distinct))]
    codes = columns[0].codes
    for column in columns[1:]:
        # Both factors are at most N: the product of two dense codes overflows for no table that fits a machine.
        size = len(column.distinct)
        combined, codes = _dense(codes * size + column.codes)
        picks = [pick[combined // size] for pick in picks]
        picks.append(combined % size)
    return [column.distinct[pick] for column, pick in zip(columns, picks, strict=True)], codes


def _dense(values: Integers) -> tuple[Integers, Integers]:
    """The distinct values [C], ascending, and each row's position among them [N]."""
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span > 4 * len(values) + _SPARE:
        return _dense_by_hash(values)
    shifted = values - low
    occurs = np.zeros(span, np.bool_)
    occurs[shifted] = True
    distinct = np.flatnonzero(occurs)
    if len(distinct) == span:
        return distinct + low, shifted
    return distinct + low, (np.cumsum(occurs) - 1)[shifted]


def _dense_by_hash(values: Integers) -> tuple[Integers, Integers]:
    # Imported here: most servers start without ever needing pyarrow.
    from epochd_server.data.arrow_types import from_numpy, to_numpy

    encoded = from_numpy(values).dictionary_encode()
    distinct: Integers = to_numpy(encoded.dictionary)
    order = np.argsort(distinct)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return distinct[order], ranks[to_numpy(encoded.indices)]
