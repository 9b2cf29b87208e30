"""Keys of the members of fleets.

A key is one value where there is one key column, else a tuple with a value for each of them, in their order.

Example:
    >>> key_text("store-17"), key_text(("north", 3))
    ('store-17', 'north, 3')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

KeyPart: TypeAlias = str | int | float
"""A value of a key column: a text or an integer; in a sweep also a number."""

Key: TypeAlias = KeyPart | tuple[KeyPart, ...]
"""A member's key, as members have it."""

KeyLike: TypeAlias = Key | Mapping[str, KeyPart]
"""A key as it may be given: also by the names of the key columns, ``{"lr": 0.1, "seed": 1}``."""


def key_text(key: Key) -> str:
    """A key for people."""
    return ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in key_parts(key))


def key_parts(key: Key) -> tuple[KeyPart, ...]:
    """The values of a key, also of a key with only one.

    Example:
        >>> key_parts(7), key_parts(("north", 3))
        ((7,), ('north', 3))
    """
    return key if isinstance(key, tuple) else (key,)
