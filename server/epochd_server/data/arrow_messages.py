"""How much an Arrow stream expands to, read off its metadata before anything is decompressed.

A compressed buffer starts with its uncompressed length as an int64 (Arrow columnar format, "Compression"), which a
reader allocates at once. The metadata are flatbuffers: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pyarrow as pa
from pyarrow import ipc

from epochd_server.data.storing import malformed, too_large

_UNCOMPRESSED = -1
_HEADER, _BATCH_BUFFERS, _BATCH_COMPRESSION, _DICTIONARY_DATA = 2, 2, 3, 1
_BUFFER = struct.Struct("<qq")
_LENGTH = struct.Struct("<q")


def check_expansion(stream: pa.Buffer, max_bytes: int, release: Callable[[], None]) -> None:
    """Refuses a stream one of whose messages would take too much memory once decompressed.

    Args:
        stream: Its bytes.
        max_bytes: What a message may take.
        release: Lets go of the pages that were read so far: a look at a message may map megabytes around it.

    Raises:
        EpochdError: DATA_TOO_LARGE.
        InvalidInput: The metadata are malformed.
    """
    for message in ipc.MessageReader.open_stream(stream):
        if message.type not in ("record batch", "dictionary"):
            continue
        try:
            expanded = _expanded(message)
        except struct.error:
            raise malformed("is no valid arrow table: damaged metadata") from None
        if expanded > max_bytes:
            raise too_large(max_bytes)
        release()


def _expanded(message: ipc.Message) -> int:
    """Bytes of a message's buffers once decompressed."""
    metadata, body = memoryview(message.metadata), memoryview(message.body)
    batch = _table_field(metadata, _root(metadata), _HEADER)
    if message.type == "dictionary":
        batch = _table_field(metadata, batch, _DICTIONARY_DATA)
    if not _field(metadata, batch, _BATCH_COMPRESSION):
        return len(body)
    vector = _table_field(metadata, batch, _BATCH_BUFFERS)
    (count,) = struct.unpack_from("<I", metadata, vector)
    total = 0
    for index in range(count):
        offset, length = _BUFFER.unpack_from(metadata, vector + 4 + index * _BUFFER.size)
        total += _buffer_length(body, offset, length)
    return total


def _buffer_length(body: memoryview, offset: int, length: int) -> int:
    if length == 0:
        return 0
    if offset < 0 or length < 0:
        raise struct.error
    (claimed,) = _LENGTH.unpack_from(body, offset)
    return length if claimed == _UNCOMPRESSED else max(int(claimed), 0)


def _root(data: memoryview) -> int:
    (offset,) = struct.unpack_from("<I", data, 0)
    return int(offset)


def _field(data: memoryview, table: int, index: int) -> int:
    """Position of a table's field, or 0 where it is absent."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise struct.error
    (size,) = struct.unpack_from("<H", data, vtable)
    slot = 4 + 2 * index
    if slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + slot)
    return table + int(offset) if offset else 0


def _table_field(data: memoryview, table: int, index: int) -> int:
    """Position of what a table's field refers to."""
    position = _field(data, table, index)
    if not position:
        raise struct.error
    (offset,) = struct.unpack_from("<I", data, position)
    return position + int(offset)
