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
        self._members = np.empty(len(joined), np.int64)
        self._members[joined] = np.arange(len(joined))

    def find(self, columns: Sequence[NDArray[np.generic]]) -> Integers:
        """The member [n] of each row, or UNKNOWN.

        Args:
            columns: One array [n] a key column: text (dtype object) or numbers, as the keys are.
        """
        joined = self._columns[0].find(columns[0])
        for column, lookup, join in zip(columns[1:], self._columns[1:], self._joins, strict=True):
            joined = join.find(joined, lookup.find(column))
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

    def find(self, values: NDArray[np.generic]) -> Integers:
        """The rank [n] of each value, or UNKNOWN."""


class _Numbers:
    def __init__(self, column: NDArray[np.generic]) -> None:
        self._distinct = np.unique(column)
        self.size = len(self._distinct)

    def find(self, values: NDArray[np.generic]) -> Integers:
        converted, exact = _as_type_of(values, self._distinct)
        places = np.searchsorted(self._distinct, converted).astype(np.int64, copy=False)
        places[places == self.size] = 0
        places[(self._distinct[places] != converted) | ~exact] = UNKNOWN
        return places


class _Texts:
    def __init__(self, column: NDArray[np.generic]) -> None:
        self._ranks = {text: rank for rank, text in enumerate(dict.fromkeys(column.tolist()))}
        self.size = len(self._ranks)

    def find(self, values: NDArray[np.generic]) -> Integers:
        return np.fromiter(map(self._ranks.get, values.tolist(), repeat(UNKNOWN)), np.int64, len(values))


class _Join:
    """Ranks of pairs of ranks among the pairs that members have."""

    def __init__(self, left: Integers, right: Integers, size: int) -> None:
        self._size = size
        self._pairs = np.unique(left * size + right)

    def find(self, left: Integers, right: Integers) -> Integers:
        wanted = np.where((left == UNKNOWN) | (right == UNKNOWN), UNKNOWN, left * self._size + right)
        places = np.searchsorted(self._pairs, wanted).astype(np.int64, copy=False)
        places[places == len(self._pairs)] = 0
        places[self._pairs[places] != wanted] = UNKNOWN
        return places


def _lookup(column: NDArray[np.generic]) -> _Lookup:
    return _Texts(column) if column.dtype == object else _Numbers(column)


def _as_type_of(
    values: NDArray[Any], keys: NDArray[Any]
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Numbers of any type in the type of the keys, and which of them it holds exactly."""
    if values.dtype == keys.dtype:
        return values, np.ones(len(values), np.bool_)
    with np.errstate(invalid="ignore"):
        converted = values.astype(keys.dtype)
        # An unsigned number beyond the keys' type comes back as itself, but by way of a negative one.
        exact = (converted.astype(values.dtype) == values) & ((converted < 0) == (values < 0))
    return converted, exact
