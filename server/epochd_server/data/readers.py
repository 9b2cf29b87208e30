"""Readers of uploaded files: record batches of the types that datasets are stored with, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
from pyarrow import ipc
from pyarrow import parquet as pq

from epochd_server.data.arrow_messages import check_expansion
from epochd_server.data.arrow_types import storable
from epochd_server.data.csv_files import read_csv
from epochd_server.data.storing import stored_schema, to_stored
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
    with pa.memory_map(str(source)) as mapped:
        buffer = mapped.read_buffer()
    # A file is a stream between a magic number and a footer; read in order, nothing in it can hide.
    if buffer.slice(0, len(_FILE_MAGIC)).equals(pa.py_buffer(_FILE_MAGIC)):
        buffer = buffer.slice(len(_FILE_MAGIC))
    check_expansion(buffer, max_bytes)
    with ipc.open_stream(buffer) as reader:
        schema = stored_schema(reader.schema)
        for batch in reader:
            batch.validate(full=True)
            yield to_stored(batch, schema, max_bytes)


READERS: Mapping[DatasetFormat, Reader] = MappingProxyType(
    {
        DatasetFormat.TABLES: read_tables,
        DatasetFormat.CSV: read_csv,
        DatasetFormat.PARQUET: read_parquet,
        DatasetFormat.ARROW: read_arrow,
    }
)
"""Each takes a path and the most bytes that the table may take in memory."""
