"""How numbers are told in sentences."""

from __future__ import annotations


def counted(number: int, unit: str) -> str:
    """``1 epoch``, ``2,000 epochs``."""
    return f"{number:,} {unit}" + ("" if number == 1 else "s")
