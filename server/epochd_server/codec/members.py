"""Members of fleets: keys, messages ↔ domain."""

from __future__ import annotations

import math
from collections.abc import Iterable

from epochd.v1 import spec_pb2 as pb
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.fleets import Key

MAX_KEY_COLUMNS = 16


def encode_key(key: Key) -> pb.MemberKey:
    """The message of a member's key."""
    return pb.MemberKey(values=map(_encode_value, key))


def decode_key(message: pb.MemberKey, violations: Violations) -> Key | None:
    """A key; whether there is such a member is not looked at here. Field paths are relative to the MemberKey.

    Returns:
        None, and everything wrong in ``violations``, where it is malformed.
    """
    before = len(violations.found)
    count = len(message.values)
    if not 1 <= count <= MAX_KEY_COLUMNS:
        violations.add("values", f"must have 1 to {MAX_KEY_COLUMNS} values, one a key column, has {count}")
        return None
    key = tuple(_decode_value(index, value, violations) for index, value in enumerate(message.values))
    return key if len(violations.found) == before else None


def encode_keys(keys: Iterable[Key]) -> list[pb.MemberKey]:
    """The messages of keys, in order."""
    return [encode_key(key) for key in keys]


def stored_key(message: pb.MemberKey) -> Key:
    """The key of a message that this server made.

    Raises:
        EpochdError: ARTIFACT_CORRUPT where it is malformed.
    """
    key = decode_key(message, Violations())
    if key is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return key


def _encode_value(value: str | int | float) -> pb.KeyValue:
    if isinstance(value, str):
        return pb.KeyValue(text=value)
    if isinstance(value, int):
        return pb.KeyValue(integer=value)
    return pb.KeyValue(number=value)


def _decode_value(index: int, message: pb.KeyValue, violations: Violations) -> str | int | float:
    match message.WhichOneof("value"):
        case "text":
            return message.text
        case "integer":
            return message.integer
        case "number":
            if not math.isfinite(message.number):
                violations.add(f"values[{index}].number", f"must be finite, is {message.number:g}")
            return message.number
        case None:
            violations.add(f"values[{index}].value", "must be set: text, integer or number")
            return ""
