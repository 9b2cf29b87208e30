"""Keys of the members of fleets: messages ↔ domain."""

from __future__ import annotations

import math

from epochd.v1 import spec_pb2 as pb
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Key


def encode_key(key: Key) -> pb.MemberKey:
    """The message of a key."""
    return pb.MemberKey(values=map(_encode_value, key))


def decode_key(message: pb.MemberKey, violations: Violations) -> Key | None:
    """The key of a message; field paths are relative to it.

    Returns:
        None, and everything wrong in ``violations``, where it is malformed.
    """
    before = len(violations.found)
    if not message.values:
        violations.add("values", "must have one value for each key column, has none")
    values = tuple(_decode_value(index, value, violations) for index, value in enumerate(message.values))
    return values if len(violations.found) == before else None


def _encode_value(value: str | int | float) -> pb.KeyValue:
    match value:
        case str():
            return pb.KeyValue(text=value)
        case int():
            return pb.KeyValue(integer=value)
        case _:
            return pb.KeyValue(number=value)


def _decode_value(index: int, message: pb.KeyValue, violations: Violations) -> str | int | float:
    match message.WhichOneof("value"):
        case "text":
            return message.text
        case "integer":
            return message.integer
        case "number":
            if not math.isfinite(message.number):
                violations.add(f"values[{index}].number", f"must be finite, is {message.number}")
            return message.number
        case None:
            violations.add(f"values[{index}]", "must be set: text, integer or number")
            return 0
