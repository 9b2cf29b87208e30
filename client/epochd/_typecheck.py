"""Type checks of the small value classes. Values are the server's to judge, which says everything at once."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def require(owner: Any, name: str, kind: type | tuple[type, ...], *, optional: bool = False) -> None:
    """Raises TypeError unless ``owner.name`` is of ``kind``; a bool is no number, NumPy's numbers are.

    Args:
        owner: The instance whose field is checked.
        name: The field.
        kind: ``Real``, ``Integral``, ``bool``, ``str`` or a class.
        optional: Whether None is fine, too.
    """
    value = getattr(owner, name)
    if value is None and optional:
        return
    number = kind in (Real, Integral)
    if not isinstance(value, kind) or (number and isinstance(value, bool)):
        wanted = {Real: "a number", Integral: "an integer", bool: "a bool", str: "a str"}.get(kind, str(kind))  # type: ignore[arg-type]
        raise TypeError(f"{type(owner).__name__}: {name} must be {wanted}, not {value!r}")
