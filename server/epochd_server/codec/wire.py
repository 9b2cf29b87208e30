"""Pieces of protobuf's wire format, for the few messages that are too many to be built field by field.

Serialised messages that follow each other are one message, so hand-made fields and generated ones can be joined.
The format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from google.protobuf.descriptor import Descriptor

_LENGTH_DELIMITED = 2
_FIXED_64 = 1


def varint(number: int) -> bytes:
    """A number >= 0 in seven bits a byte, the lowest first, all but the last with the top bit set."""
    if number < 128:
        return _SHORT[number]
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


@lru_cache(maxsize=256)
def tag(message: Descriptor, field: str) -> bytes:
    """What comes before a field's value."""
    found = message.fields_by_name[field]
    if found.type == found.TYPE_DOUBLE:
        kind = _FIXED_64
    elif found.type in (found.TYPE_MESSAGE, found.TYPE_BYTES, found.TYPE_STRING):
        kind = _LENGTH_DELIMITED
    else:
        kind = 0
    return varint(found.number << 3 | kind)


def delimited(tag_: bytes, data: bytes) -> bytes:
    """A field that is a message, bytes or a string."""
    return b"%b%b%b" % (tag_, varint(len(data)), data)


_SHORT = tuple(struct.pack("B", number) for number in range(128))
