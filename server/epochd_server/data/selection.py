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
        complete: Whether the roles were free of faults, so that the number of features is what was meant.
    """

    features: tuple[int, ...]
    targets: tuple[int, ...]
    complete: bool


def select(names: Sequence[str], roles: ColumnRoles, violations: Violations) -> Selection:
    """Finds the columns of each role, and reports every fault of ``data.feature_columns`` and ``…target_columns``.

    Args:
        names: The columns there are; unique.
        roles: Names by role; without features, every column that is no target is one.
        violations: Takes unknown names (with the nearest known one), repeated names, and names of both roles.
    """
    before = len(violations.found)
    index = {name: position for position, name in enumerate(names)}
    targets = _find(roles.targets, index, "data.target_columns", violations)
    if not roles.targets:
        violations.add("data.target_columns", f"must name one column or more of {quoted(names)}")
    if roles.features:
        features = _find(roles.features, index, "data.feature_columns", violations)
        _check_both_roles(roles, violations)
    else:
        chosen = set(targets)
        features = tuple(position for position in range(len(names)) if position not in chosen)
        if not features:
            violations.add("data.feature_columns", "there is no column to learn from besides the targets")
    return Selection(features=features, targets=targets, complete=len(violations.found) == before)


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


def _check_both_roles(roles: ColumnRoles, violations: Violations) -> None:
    targets = set(roles.targets)
    both = [(position, name) for position, name in enumerate(roles.features) if name in targets]
    for position, name in both[:_MAX_REPORTED]:
        violations.add(f"data.feature_columns[{position}]", f"{name[:_SHOWN]!r} is a target column too")
