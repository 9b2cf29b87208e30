"""Readers of uploaded files: record batches of the types that datasets are stored with, one after the other."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
from pyarrow import ipc
from pyarrow import parquet as pq

from epochd_server.data.arrow_messages import check_expansion
from epochd_server.data.arrow_types import storable
from epochd_server.data.csv_files import read_csv
from epochd_server.data.storing import malformed, stored_schema, to_stored, too_large
from epochd_server.data.table_files import read_tables
from epochd_server.domain.datasets import DatasetFormat

Batches = Iterator[pa.RecordBatch]
Reader = Callable[[Path, int], Batches]
_ROWS = 65_536
_FILE_MAGIC = b"ARROW1\0\0"


def read_parquet(source: Path, max_bytes: int) -> Batches:
    """The rows of a Parquet file, 65,536 at a time."""
    with pq.ParquetFile(source) as file:
        texts = [field.name for field in file.schema_arrow if storable(field.type) == pa.string()]
    # Text stays a dictionary until it is known how much it expands to.
    with pq.ParquetFile(source, read_dictionary=texts) as file:
        schema = stored_schema(file.schema_arrow)
        for batch in file.iter_batches(batch_size=_ROWS):
            yield to_stored(batch, schema, max_bytes)


def read_arrow(source: Path, max_bytes: int) -> Batches:
    """The rows of an Arrow IPC file or stream, in the batches that it has."""
    buffer, release = _mapped(source)
    # A file is a stream between a magic number and a footer; read in order, nothing in it can hide.
    if buffer.slice(0, len(_FILE_MAGIC)).equals(pa.py_buffer(_FILE_MAGIC)):
        buffer = buffer.slice(len(_FILE_MAGIC))
    check_expansion(buffer, max_bytes, release)
    with ipc.open_stream(buffer) as reader:
        schema = stored_schema(reader.schema)
        for batch in reader:
            batch.validate(full=True)
            yield to_stored(batch, schema, max_bytes)
            release()


def as_stored(source: Path, max_bytes: int, most_batch_bytes: int) -> tuple[pa.Schema, int] | None:
    """Schema and rows of an Arrow IPC file that is as this server would write it; None where it is not.

    Args:
        source: The file.
        max_bytes: What the table may take in memory.
        most_batch_bytes: What one of its batches may take.
    """
    buffer, release = _mapped(source)
    if not buffer.slice(0, len(_FILE_MAGIC)).equals(pa.py_buffer(_FILE_MAGIC)):
        return None
    check_expansion(buffer.slice(len(_FILE_MAGIC)), max_bytes, release)
    with ipc.open_stream(buffer.slice(len(_FILE_MAGIC))) as stream, ipc.open_file(buffer) as file:
        if (
            stored_schema(stream.schema) != stream.schema
            or stream.schema.metadata
            or file.schema != stream.schema
        ):
            return None
        rows = size = number = 0
        for number, batch in enumerate(stream, 1):
            # Workers find batches by the footer: it must lead to these very bytes, mapped and not unpacked.
            indexed = file.get_batch(number - 1) if number <= file.num_record_batches else None
            if indexed is None or not _is_same(batch, indexed, buffer) or batch.nbytes > most_batch_bytes:
                return None
            batch.validate(full=True)
            rows, size = rows + len(batch), size + batch.nbytes
            release()
        if size > max_bytes:
            raise too_large(max_bytes)
        return (stream.schema, rows) if number == file.num_record_batches else None


def _mapped(source: Path) -> tuple[pa.Buffer, Callable[[], None]]:
    """A file's bytes, and what lets go of those that were read."""
    if not source.stat().st_size:
        raise malformed("the file is empty")
    with source.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return pa.py_buffer(mapping), partial(mapping.madvise, mmap.MADV_DONTNEED)


def _is_same(batch: pa.RecordBatch, other: pa.RecordBatch, within: pa.Buffer) -> bool:
    """Whether two batches are the same bytes of a buffer."""
    first, last = within.address, within.address + within.size
    places, others = (
        [None if one is None else (one.address, one.size) for column in each for one in column.buffers()]
        for each in (batch.columns, other.columns)
    )
    inside = all(place is None or not place[1] or first <= place[0] < last for place in places)
    return inside and places == others and len(batch) == len(other)


READERS: Mapping[DatasetFormat, Reader] = MappingProxyType(
    {
        DatasetFormat.TABLES: read_tables,
        DatasetFormat.CSV: read_csv,
        DatasetFormat.PARQUET: read_parquet,
        DatasetFormat.ARROW: read_arrow,
    }
)
"""Each takes a path and the most bytes that the table may take in memory."""
