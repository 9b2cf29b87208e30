"""Keys of members, to and from their messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from epochd.errors import invalid
from epochd.keys import Key, KeyLike, KeyPart
from epochd.v1 import spec_pb2


def encode_key(key: KeyLike, columns: Sequence[str] = (), field: str = "key") -> spec_pb2.MemberKey:
    """The message of a key.

    Args:
        key: One value, a tuple of values, or values by the names of the key columns.
        columns: The key columns, where they are known.
        field: What an error names.

    Raises:
        InvalidArgument: When it is no key, or names other columns.
    """
    if isinstance(key, Mapping):
        if set(key) != set(columns):
            raise invalid(field, f"must name {', '.join(columns)}, names {', '.join(map(str, key))}")
        parts: Sequence[Any] = [key[name] for name in columns]
    else:
        parts = key if isinstance(key, tuple | list) else (key,)
    return spec_pb2.MemberKey(values=[_encode_part(part, field) for part in parts])


def decode_key(message: spec_pb2.MemberKey) -> Key:
    """The key of a message."""
    values = message.values
    return _decode_part(values[0]) if len(values) == 1 else tuple(map(_decode_part, values))


def _encode_part(part: Any, field: str) -> spec_pb2.KeyValue:
    if isinstance(part, str):
        return spec_pb2.KeyValue(text=part)
    if isinstance(part, bool) or not isinstance(part, Real):
        raise invalid(field, f"must be of texts and numbers, has {part!r}")
    if isinstance(part, Integral):
        return spec_pb2.KeyValue(integer=int(part))
    return spec_pb2.KeyValue(number=float(part))


def _decode_part(message: spec_pb2.KeyValue) -> KeyPart:
    kind = message.WhichOneof("value")
    value: KeyPart = getattr(message, kind) if kind else ""
    return value
