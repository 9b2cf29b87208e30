"""Which columns play which role."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epochd_server.domain.data import ColumnRoles, quoted
from epochd_server.domain.errors import Violations

_MAX_REPORTED = 20
_SHOWN = 64
_MAX_COMPARED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Columns by role, as far as they exist.

    Attributes:
        features: Indices of the columns to learn from, in order.
        targets: Indices of the columns to predict, in order.
        groups: Indices of the key columns, in order; empty where one model is trained.
        weight: Index of the column of row weights, or None.
        split: Index of the column that decides which rows are held out, or None.
        complete: Whether the roles were free of faults, so that the number of features is what was meant.
    """

    features: tuple[int, ...]
    targets: tuple[int, ...]
    groups: tuple[int, ...] = ()
    weight: int | None = None
    split: int | None = None
    complete: bool

    def roles(self, names: Sequence[str]) -> ColumnRoles:
        """The same with all columns named; ``names`` are those of all columns."""
        return ColumnRoles(
            features=tuple(names[index] for index in self.features),
            targets=tuple(names[index] for index in self.targets),
            groups=tuple(names[index] for index in self.groups),
            weight=None if self.weight is None else names[self.weight],
        )


def select(names: Sequence[str], roles: ColumnRoles, violations: Violations) -> Selection:
    """Finds the columns of each role, and reports every fault of ``data.feature_columns`` and the other roles.

    Args:
        names: The columns there are; unique.
        roles: Names by role; without features, every column that has no other role is one.
        violations: Takes unknown names (with the nearest known one), repeated names, and names of two roles.
    """
    before = len(violations.found)
    index = {name: position for position, name in enumerate(names)}
    targets = _find(roles.targets, index, "data.target_columns", violations)
    if not roles.targets:
        violations.add("data.target_columns", f"must name one column or more of {quoted(names)}")
    groups = _find(roles.groups, index, "data.group_columns", violations)
    weight = _find_one(roles.weight, index, "data.weight_column", violations)
    split = _find_one(roles.split, index, "validation.split", violations)
    if roles.features:
        features = _find(roles.features, index, "data.feature_columns", violations)
    else:
        chosen = {*targets, *groups, weight, split}
        features = tuple(position for position in range(len(names)) if position not in chosen)
        if not features:
            violations.add("data.feature_columns", "there is no column to learn from besides the targets")
    if roles.features or roles.groups or roles.weight is not None:
        _check_two_roles(roles, violations)
    return Selection(
        features=features,
        targets=targets,
        groups=groups,
        weight=weight,
        split=split,
        complete=len(violations.found) == before,
    )


def _find_one(name: str | None, index: Mapping[str, int], field: str, violations: Violations) -> int | None:
    if name is None:
        return None
    column = index.get(name)
    if column is None:
        violations.add(field, f"{name[:_SHOWN]!r} {_unknown(name, tuple(index))}")
    return column


def _find(
    wanted: Sequence[str], index: Mapping[str, int], field: str, violations: Violations
) -> tuple[int, ...]:
    found: dict[int, None] = {}
    faults = 0
    for position, name in enumerate(wanted):
        column = index.get(name)
        if column is not None and column not in found:
            found[column] = None
            continue
        faults += 1
        if faults <= _MAX_REPORTED:
            problem = "is listed twice" if column is not None else _unknown(name, tuple(index))
            violations.add(f"{field}[{position}]", f"{name[:_SHOWN]!r} {problem}")
    if faults > _MAX_REPORTED:
        violations.add(field, f"has {faults - _MAX_REPORTED} more faults of this kind")
    return tuple(found)


def _unknown(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:_SHOWN], names[:_MAX_COMPARED], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {quoted(names)}"
    return f"is no column of the data; {hint}"


def _check_two_roles(roles: ColumnRoles, violations: Violations) -> None:
    """Reports features, key columns and the weight column that have a role which is listed before theirs here."""
    taken = dict.fromkeys(roles.targets, "a target column")
    _report_taken(roles.groups, taken, "data.group_columns[{}]", violations)
    taken = {**dict.fromkeys(roles.groups, "a key column"), **taken}
    weights = () if roles.weight is None else (roles.weight,)
    _report_taken(weights, taken, "data.weight_column", violations)
    taken = {**dict.fromkeys(weights, "the weight column"), **taken}
    _report_taken(roles.features, taken, "data.feature_columns[{}]", violations)


def _report_taken(names: Sequence[str], taken: Mapping[str, str], field: str, violations: Violations) -> None:
    both = [(position, name) for position, name in enumerate(names) if name in taken]
    for position, name in both[:_MAX_REPORTED]:
        violations.add(field.format(position), f"{name[:_SHOWN]!r} is {taken[name]} too")
