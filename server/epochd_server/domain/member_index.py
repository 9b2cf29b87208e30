"""From keys to the members that they name, for many rows at once.

Legend: n rows, K members.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.fleets import Key, Keys

Integers = NDArray[np.int64]
UNKNOWN = -1
_SPARSITY = 16
"""Integers are looked up in a table where that has at most so many entries for each of them."""
_TEXT_BYTES = 160
"""About what a short text takes in a dictionary."""


class MemberIndex:
    """Finds the members of rows, each row in constant or logarithmic time and none of them in Python code.

    Args:
        keys: Of the members; no two alike.
    """

    def __init__(self, keys: Keys) -> None:
        self._columns = [_lookup(column) for column in keys.columns]
        ranks = [lookup.find(column) for lookup, column in zip(self._columns, keys.columns, strict=True)]
        # Several columns are joined one by one, so that no product of their sizes leaves 64 bits.
        self._joins: list[_Join] = []
        joined = ranks[0]
        for rank, lookup in zip(ranks[1:], self._columns[1:], strict=True):
            self._joins.append(_Join(joined, rank, lookup.size))
            joined = self._joins[-1].find(joined, rank)
        members = np.empty(len(joined), np.int64)
        members[joined] = np.arange(len(joined))
        # Keys in ascending order, as fleets have them, rank like their members.
        self._members = None if np.array_equal(joined, np.arange(len(joined))) else members

    @property
    def nbytes(self) -> int:
        """The memory that it takes, about."""
        columns = sum(lookup.nbytes for lookup in self._columns)
        return columns + sum(join.nbytes for join in self._joins)

    def find(self, columns: Sequence[NDArray[np.generic]]) -> Integers:
        """The member [n] of each row, or UNKNOWN.

        Args:
            columns: One array [n] a key column: text (dtype object) or numbers, as the keys are.
        """
        joined = self._columns[0].find(columns[0])
        for column, lookup, join in zip(columns[1:], self._columns[1:], self._joins, strict=True):
            joined = join.find(joined, lookup.find(column))
        if self._members is None:
            return joined
        return np.where(joined == UNKNOWN, UNKNOWN, self._members[joined])


def member_of(keys: Keys, key: Key) -> int | None:
    """The member with this key, or None; without an index, for one key."""
    if len(key) != len(keys.columns):
        return None
    same = np.ones(len(keys), np.bool_)
    for column, value in zip(keys.columns, key, strict=True):
        if (column.dtype == object) != isinstance(value, str):
            return None
        same &= column == value
    found = np.flatnonzero(same)
    return int(found[0]) if len(found) else None


class _Lookup(Protocol):
    """Ranks of values among the distinct values of a key column."""

    size: int
    nbytes: int

    def find(self, values: NDArray[np.generic]) -> Integers:
        """The rank [n] of each value, or UNKNOWN."""


class _Numbers:
    """Ranks of any numbers, by binary search."""

    def __init__(self, distinct: NDArray[np.generic]) -> None:
        self._distinct = distinct
        self.size = len(distinct)
        self.nbytes = self._distinct.nbytes

    def find(self, values: NDArray[np.generic]) -> Integers:
        converted, exact = _as_type_of(values, self._distinct.dtype)
        places = np.searchsorted(self._distinct, converted).astype(np.int64, copy=False)
        places[places == self.size] = 0
        places[self._distinct[places] != converted] = UNKNOWN
        if exact is not None:
            places[~exact] = UNKNOWN
        return places


class _Range:
    """Ranks of integers that lie close together, read from a table with an entry for each integer between."""

    def __init__(self, distinct: NDArray[np.int64]) -> None:
        self._low = int(distinct[0])
        self._table = np.full(int(distinct[-1]) - self._low + 1, UNKNOWN, np.int64)
        self._table[distinct - self._low] = np.arange(len(distinct))
        self.size = len(distinct)
        self.nbytes = self._table.nbytes

    def find(self, values: NDArray[np.generic]) -> Integers:
        converted, exact = _as_type_of(values, np.dtype(np.int64))
        # What lies below the first, and what overflows here, becomes a number beyond the table.
        places = (converted - self._low).view(np.uint64)
        last = np.uint64(len(self._table) - 1)
        found: Integers = self._table[np.minimum(places, last).view(np.int64)]
        found[places > last] = UNKNOWN
        if exact is not None:
            found[~exact] = UNKNOWN
        return found


class _Texts:
    def __init__(self, column: NDArray[np.generic]) -> None:
        self._ranks = {text: rank for rank, text in enumerate(dict.fromkeys(column.tolist()))}
        self.size = len(self._ranks)
        self.nbytes = _TEXT_BYTES * self.size

    def find(self, values: NDArray[np.generic]) -> Integers:
        return np.fromiter(map(self._ranks.get, values.tolist(), repeat(UNKNOWN)), np.int64, len(values))


class _Join:
    """Ranks of pairs of ranks among the pairs that members have."""

    def __init__(self, left: Integers, right: Integers, size: int) -> None:
        self._size = size
        self._pairs = np.unique(left * size + right)
        self.nbytes = self._pairs.nbytes

    def find(self, left: Integers, right: Integers) -> Integers:
        wanted = np.where((left == UNKNOWN) | (right == UNKNOWN), UNKNOWN, left * self._size + right)
        places = np.searchsorted(self._pairs, wanted).astype(np.int64, copy=False)
        places[places == len(self._pairs)] = 0
        places[self._pairs[places] != wanted] = UNKNOWN
        return places


def _lookup(column: NDArray[np.generic]) -> _Lookup:
    if column.dtype == object:
        return _Texts(column)
    distinct: NDArray[Any] = np.unique(column)
    if distinct.dtype == np.int64 and int(distinct[-1]) - int(distinct[0]) < _SPARSITY * len(distinct):
        return _Range(distinct)
    return _Numbers(distinct)


def _as_type_of(
    values: NDArray[Any], dtype: np.dtype[Any]
) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
    """Numbers of any type in the type of the keys, and which of them it holds exactly; None: all."""
    if values.dtype == dtype:
        return values, None
    with np.errstate(invalid="ignore"):
        converted = values.astype(dtype)
        # An unsigned number beyond the keys' type comes back as itself, but by way of a negative one.
        exact = (converted.astype(values.dtype) == values) & ((converted < 0) == (values < 0))
    return converted, exact
