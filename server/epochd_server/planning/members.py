"""Keys of members that a request names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epochd_server.data.grouping import find_member
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Key, Keys

_SHOWN = 40


def resolve_log_members(asked: Sequence[Key], keys: Keys, violations: Violations) -> tuple[Key, ...]:
    """The keys of members whose epochs are to be logged, in the types of the key columns.

    Args:
        asked: The keys as the client gave them.
        keys: Those that there are.
        violations: Takes those that there are not, and those of another shape or type.
    """
    return tuple(
        found
        for index, key in enumerate(asked)
        if (found := _resolve(key, keys, f"logging.members[{index}]", violations)) is not None
    )


def _resolve(key: Key, keys: Keys, field: str, violations: Violations) -> Key | None:
    names = keys.names
    if len(key) != len(names):
        violations.add(field, f"has {len(key)} values, but there are {len(names)} key columns")
        return None
    problems = [
        f"{name!r} must be {kind}"
        for name, column, value in zip(names, keys.columns, key, strict=True)
        if not isinstance(value, _TYPES[kind := _kind(column.dtype)])
    ]
    if problems:
        violations.add(field, "; ".join(problems))
        return None
    member = find_member(keys, key)
    if member is None:
        shown = ", ".join(f"{name}={_shown(value)}" for name, value in zip(names, key, strict=True))
        violations.add(field, f"there is no member {shown}")
        return None
    return keys.key(member)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "an integer": int,
    "a number": (int, float),
}


def _kind(dtype: np.dtype[np.generic]) -> str:
    if dtype.kind == "O":
        return "text"
    return "an integer" if dtype.kind == "i" else "a number"


def _shown(value: str | int | float) -> str:
    return repr(value[:_SHOWN]) if isinstance(value, str) else f"{value}"
