"""Which member of a fleet predicts each row of a request.

Legend: n rows, K members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.data import Column, Table, quoted
from epochd_server.domain.errors import InvalidInput, Violations
from epochd_server.domain.fleets import Key, Members, MemberState
from epochd_server.domain.member_index import UNKNOWN, MemberIndex
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.promoting import find_trained_member, show_key

_SHOWN = 5
_NO_FLEET = "only fleets have members; this is a single model"
_WAY_OUT = "set unknown_as_nan or fallback_member to predict such rows"


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The members of n rows.

    Attributes:
        members: [n] indices of trained members.
        missing: [n] rows that have none and are to become NaN, their index being meaningless; None: there are none.
    """

    members: NDArray[np.int64]
    missing: NDArray[np.bool_] | None = None

    def part(self, chosen: NDArray[np.bool_]) -> Assignment:
        """The members of some of the rows, bool [n]."""
        return Assignment(self.members[chosen], None if self.missing is None else self.missing[chosen])


def refuse_members(command: PredictCommand, violations: Violations) -> None:
    """Adds every field that only a fleet can do something with."""
    if command.keys is not None:
        violations.add("keys", _NO_FLEET)
    if command.member is not None:
        violations.add("member", _NO_FLEET)
    if command.fallback_member is not None:
        violations.add("fallback_member", _NO_FLEET)
    if command.unknown_as_nan:
        violations.add("unknown_as_nan", _NO_FLEET)


class MemberMatcher:
    """Finds the members of a fleet that rows name.

    Args:
        version: The fleet.
        members: Its members.
    """

    def __init__(self, version: ModelVersion, members: Members) -> None:
        self._version = version
        self._members = members
        self._names = members.keys.names
        self._index = MemberIndex(members.keys)
        self._trained = members.states == MemberState.SUCCEEDED

    @property
    def nbytes(self) -> int:
        """The memory that it takes, about."""
        return self._index.nbytes

    @property
    def learned(self) -> NDArray[np.float64] | None:
        """What members learned of their columns by themselves, [K, S]; None where they did not."""
        return self._members.learned

    @property
    def key_columns(self) -> frozenset[str]:
        """The names of the key columns."""
        return frozenset(self._names)

    def check(self, command: PredictCommand, rows: int | None, violations: Violations) -> None:
        """Adds all that is wrong with how a command names members, but not what nobody is named by.

        Args:
            command: The command.
            rows: n, where that is known.
            violations: Gets paths as in PredictRequest.
        """
        if command.unknown_as_nan and self._version.card.classes is not None:
            violations.add("unknown_as_nan", "only regressions can predict NaN; this model is a classifier")
        if command.member is not None:
            if command.keys is not None:
                violations.add("keys", "is not needed with member, which predicts every row")
            return
        table, path = _key_table(command)
        if table is None:
            names = quoted(self._names)
            violations.add("keys", f"must hold the key columns {names} of the rows, or member be set")
            return
        self._check_columns(table, path, violations)
        if path == "keys":
            self._check_keys(table, rows, violations)

    def assign(self, command: PredictCommand, rows: int) -> Assignment:
        """The members of a command that :meth:`check` found nothing wrong with.

        Raises:
            InvalidInput: Rows have keys without a trained member; names the first few.
            EpochdError: MEMBER_NOT_FOUND, MEMBER_FAILED for ``member`` and ``fallback_member``.
        """
        if command.member is not None:
            return self._all(command.member, rows)
        table, path = _key_table(command)
        if table is None:
            raise AssertionError("unreachable: check adds violations where there are no keys")
        by_name = {column.name: column.values for column in table.columns}
        columns = [by_name[name] for name in self._names]
        found = self._index.find(columns)
        if not self._members.reasons and found.min(initial=0) != UNKNOWN:
            return Assignment(found)
        usable = (found != UNKNOWN) & self._trained[found]
        if usable.all():
            return Assignment(found)
        if command.fallback_member is not None:
            fallback = find_trained_member(self._version, self._members, command.fallback_member)
            return Assignment(np.where(usable, found, fallback))
        if command.unknown_as_nan:
            return Assignment(np.where(usable, found, 0), ~usable)
        raise self._refusal(columns, found, usable, path)

    def _all(self, member: Key, rows: int) -> Assignment:
        index = find_trained_member(self._version, self._members, member)
        return Assignment(np.full(rows, index, np.int64))

    def _check_columns(self, table: Table, path: str, violations: Violations) -> None:
        given = set(table.names)
        missing = [name for name in self._names if name not in given]
        if missing:
            violations.add(
                f"{path}.columns",
                f"lacks key columns {quoted(missing)}; the fleet's are {quoted(self._names)}",
            )
        texts = {
            name: column.dtype == object
            for name, column in zip(self._names, self._members.keys.columns, strict=True)
        }
        for index, column in enumerate(table.columns):
            if column.name in texts and column.is_text != texts[column.name]:
                violations.add(f"{path}.columns[{index}]", _wrong_kind(column))

    def _check_keys(self, table: Table, rows: int | None, violations: Violations) -> None:
        for index, name in enumerate(table.names):
            if name not in self.key_columns:
                violations.add(
                    f"keys.columns[{index}]", f"{name!r} is no key column of the fleet; leave it out"
                )
        if rows is not None and table.rows != rows:
            violations.add("keys", f"has {table.rows:,} rows, but the tensor has {rows:,}")

    def _refusal(
        self,
        columns: list[NDArray[np.generic]],
        found: NDArray[np.int64],
        usable: NDArray[np.bool_],
        path: str,
    ) -> Exception:
        violations = Violations()
        unknown = np.flatnonzero(found == UNKNOWN)
        if len(unknown):
            keys = list(dict.fromkeys(zip(*(column[unknown].tolist() for column in columns), strict=True)))
            shown = _listed([show_key(key) for key in keys[:_SHOWN]], len(keys))
            violations.add(path, f"{_count(unknown)} of no member of the fleet: {shown}; {_WAY_OUT}")
        failed = np.flatnonzero(~usable & (found != UNKNOWN))
        if len(failed):
            indices = list(dict.fromkeys(found[failed].tolist()))
            shown = _listed([self._show_failed(index) for index in indices[:_SHOWN]], len(indices))
            violations.add(path, f"{_count(failed)} of members without training: {shown}; {_WAY_OUT}")
        return InvalidInput(violations.found)

    def _show_failed(self, member: int) -> str:
        return f"{show_key(self._members.keys.key(member))} ({self._members.reasons.get(member, 'UNKNOWN')})"


def _key_table(command: PredictCommand) -> tuple[Table | None, str]:
    """The table that holds the key columns, and its path in the request."""
    return (command.rows, "table") if isinstance(command.rows, Table) else (command.keys, "keys")


def _wrong_kind(column: Column) -> str:
    kinds = ("text", "numbers") if column.is_text else ("numbers", "text")
    return f"{column.name!r} holds {kinds[0]}; the fleet's keys there are {kinds[1]}"


def _count(rows: NDArray[np.int64]) -> str:
    return "1 row has the key" if len(rows) == 1 else f"{len(rows):,} rows have keys"


def _listed(shown: list[str], count: int) -> str:
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return ", ".join(shown) + more
