"""Checks of single values that decoders share. Each reports what is wrong and returns a value to go on with."""

from __future__ import annotations

import math

from epochd_server.domain.errors import Violations


def bounded_integer(value: int, low: int, high: int, field: str, violations: Violations) -> int:
    """``value`` where ``low <= value <= high``, else a violation and the nearest bound."""
    if low <= value <= high:
        return value
    violations.add(field, f"must be from {low:,} to {high:,}, is {value:,}")
    return min(max(value, low), high)


def positive(value: float, field: str, violations: Violations) -> float:
    """``value`` where it is finite and > 0, else a violation and 1."""
    if 0 < value < math.inf:
        return value
    violations.add(field, f"must be finite and > 0, is {value:g}")
    return 1.0


def not_negative(value: float, field: str, violations: Violations) -> float:
    """``value`` where it is finite and >= 0, else a violation and 0."""
    if 0 <= value < math.inf:
        return value
    violations.add(field, f"must be finite and >= 0, is {value:g}")
    return 0.0


def fraction(value: float, field: str, violations: Violations) -> float:
    """``value`` where ``0 <= value < 1``, else a violation and 0."""
    if 0 <= value < 1:
        return value
    violations.add(field, f"must be >= 0 and < 1, is {value:g}")
    return 0.0
