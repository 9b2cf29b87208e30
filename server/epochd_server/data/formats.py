"""Uploaded bytes → the one Arrow file that a dataset is stored as, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc

from epochd_server.data.arrow_types import numpy_name
from epochd_server.data.readers import READERS, Batches, as_stored
from epochd_server.data.storing import check_names, malformed, too_large
from epochd_server.domain.datasets import DatasetColumn, DatasetFormat, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason

MAX_STORED_BYTES = 64 * 2**30
_BATCH_BYTES = 8 * 2**20
_MAX_DETAIL = 300


def convert_to_arrow(
    source: Path, format_: DatasetFormat, destination: Path, max_bytes: int = MAX_STORED_BYTES
) -> DatasetSummary:
    """Writes an upload as an uncompressed Arrow IPC file that can be memory-mapped; one that is such a file is linked.

    Args:
        source: The uploaded bytes.
        format_: What they are.
        destination: The file to write; left behind unfinished when an error is raised.
        max_bytes: Bytes that the table may take in memory, however small the upload is.

    Raises:
        InvalidInput: The bytes are no table that can be stored; says where, if that is known.
        EpochdError: DATA_TOO_LARGE.
    """
    with _complaints_translated(format_):
        if format_ is DatasetFormat.ARROW and (summary := _adopted(source, destination, max_bytes)):
            return summary
        return _write(READERS[format_](source, max_bytes), destination, max_bytes)


def _adopted(source: Path, destination: Path, max_bytes: int) -> DatasetSummary | None:
    """What is in an upload that can be stored as it is, and now is; None where it must be written anew."""
    found = as_stored(source, max_bytes, 4 * _BATCH_BYTES)
    if found is None:
        return None
    schema, rows = found
    check_names(schema.names)
    if not rows:
        raise malformed("the table has no rows")
    try:
        os.link(source, destination)
    except OSError:  # a file system without links
        return None
    return _summary(schema, rows)


def _summary(schema: pa.Schema, rows: int) -> DatasetSummary:
    columns = (DatasetColumn(field.name, numpy_name(field.type)) for field in schema)
    return DatasetSummary(rows, tuple(columns))


def _write(batches: Batches, destination: Path, max_bytes: int) -> DatasetSummary:
    first = next(batches, None)
    if first is None:
        raise malformed("the table has no rows")
    check_names(first.schema.names)
    rows, size = 0, 0
    with pa.OSFile(str(destination), "wb") as sink, ipc.new_file(sink, first.schema) as writer:
        for batch in chain([first], batches):
            size += batch.nbytes
            if size > max_bytes:
                raise too_large(max_bytes)
            for portion in _portions(batch):
                writer.write_batch(portion)
            rows += batch.num_rows
    if not rows:
        raise malformed("the table has no rows")
    return _summary(first.schema, rows)


def _portions(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in portions of about _BATCH_BYTES: few enough that neighbouring rows are neighbours in the file."""
    rows = max(batch.num_rows * _BATCH_BYTES // max(batch.nbytes, 1), 1)
    for first in range(0, batch.num_rows, rows):
        yield batch.slice(first, rows)


@contextmanager
def _complaints_translated(format_: DatasetFormat) -> Iterator[None]:
    """Turns a reader's complaints about the bytes into InvalidInput; those about the disk pass."""
    try:
        yield
    except (pa.ArrowMemoryError, pa.ArrowCapacityError):
        raise EpochdError(Reason.DATA_TOO_LARGE) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise malformed(_complaint(format_, error)) from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise malformed(_complaint(format_, error)) from None


def _complaint(format_: DatasetFormat, error: Exception) -> str:
    """A complaint in one line; pyarrow's describe the bytes and hold no path."""
    lines = str(error).splitlines() or ["unreadable"]
    return f"is no valid {format_.value} table: {lines[0][:_MAX_DETAIL]}"
