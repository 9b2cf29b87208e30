"""Files of serialised Table messages, each preceded by its length as a varint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from google.protobuf.message import DecodeError

from epochd.v1.tensor_pb2 import Table as TableMessage
from epochd_server.codec.tables import decode_table
from epochd_server.data.arrow_types import from_numpy
from epochd_server.data.storing import malformed, too_large
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import Violations

MAX_MESSAGE_BYTES = 64 * 2**20
_MAX_VARINT_BYTES = 5


def read_tables(source: Path, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """The rows of each message, in order.

    Raises:
        InvalidInput: A message is cut off, malformed, or has other columns than the first.
    """
    schema: pa.Schema | None = None
    with source.open("rb") as file:
        for number, table in enumerate(_tables(file)):
            batch = _to_batch(table)
            if batch.nbytes > max_bytes:
                raise too_large(max_bytes)
            schema = schema or batch.schema
            if batch.schema != schema:
                raise malformed(f"message {number}, counting from 0, {_difference(schema, batch.schema)}")
            yield batch


def _tables(file: BinaryIO) -> Iterator[Table]:
    number = 0
    while (length := _read_length(file, number)) is not None:
        yield _parse(file.read(length), length, number)
        number += 1


def _read_length(file: BinaryIO, number: int) -> int | None:
    """The next message's length, or None at the end of the file."""
    length = 0
    for position in range(_MAX_VARINT_BYTES):
        byte = file.read(1)
        if not byte and position == 0:
            return None
        if not byte:
            raise malformed(f"the file ends within the length of message {number}, counting from 0")
        length |= (byte[0] & 0x7F) << 7 * position
        if byte[0] < 0x80:
            break
    if length > MAX_MESSAGE_BYTES or byte[0] >= 0x80:
        raise malformed(
            f"message {number}, counting from 0, claims more than {MAX_MESSAGE_BYTES:,} bytes; split it"
        )
    return length


def _parse(data: bytes, length: int, number: int) -> Table:
    where = f"message {number}, counting from 0"
    if len(data) < length:
        raise malformed(f"the file ends within {where}")
    try:
        message = TableMessage.FromString(data)
    except DecodeError:
        raise malformed(f"{where}, is no serialised Table") from None
    violations = Violations()
    table = decode_table(message, violations)
    if table is None:
        raise malformed(*(f"{where}: {v.field} {v.description}" for v in violations.found[:20]))
    return table


def _to_batch(table: Table) -> pa.RecordBatch:
    arrays = [_to_arrow(column) for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, names=list(table.names))


def _to_arrow(column: Column) -> pa.Array:
    if column.is_text:
        return pa.array(column.values, pa.string())
    return from_numpy(column.values)


def _difference(first: pa.Schema, other: pa.Schema) -> str:
    if first.names != other.names:
        return "has other columns than the first message"
    for name, expected, given in zip(first.names, first.types, other.types, strict=True):
        if expected != given:
            return f"has column {name!r} as {given}, but the first message has it as {expected}"
    return "has other columns than the first message"
