"""From batches as a file has them to batches as a dataset is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from epochd_server.codec.tables import MAX_COLUMNS, wrong_name
from epochd_server.data.arrow_types import storable
from epochd_server.domain.data import quoted
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason

FIELD = "data"
_MAX_REPORTED = 20
_SHOWN = 64
_ALLOWED = "numeric, boolean, text or a timestamp"


def malformed(*problems: str) -> InvalidInput:
    """The error of an upload that is no table that can be stored."""
    return InvalidInput([FieldViolation(FIELD, problem) for problem in problems])


def too_large(max_bytes: int) -> EpochdError:
    """The error of a table that takes too much memory."""
    return EpochdError(Reason.DATA_TOO_LARGE, f"The table takes more than {max_bytes:,} bytes in memory.")


def check_names(names: Sequence[str]) -> None:
    """Checks the names of a table's columns.

    Raises:
        InvalidInput: Names that are missing, malformed or given twice, or too many of them.
    """
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise malformed(f"the table has {len(names):,} columns, allowed are 1 to {MAX_COLUMNS:,}")
    problems = [
        f"the name of column {index}, counting from 0, {problem}"
        for index, name in enumerate(names)
        if (problem := wrong_name(name)) is not None
    ]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        problems.append(f"more than one column is named {quoted([name[:_SHOWN] for name in repeated])}")
    if problems:
        raise malformed(*problems[:_MAX_REPORTED])


def stored_schema(given: pa.Schema) -> pa.Schema:
    """The schema that a table is stored with.

    Raises:
        InvalidInput: Every column whose type a dataset cannot have.
    """
    types = [storable(field.type) for field in given]
    problems = [
        f"column {field.name[:_SHOWN]!r} is of type {str(field.type)[:_SHOWN]}; it must be {_ALLOWED}"
        for field, type_ in zip(given, types, strict=True)
        if type_ is None
    ]
    if problems:
        raise malformed(*problems[:_MAX_REPORTED])
    return pa.schema([pa.field(field.name, type_) for field, type_ in zip(given, types, strict=True)])


def to_stored(batch: pa.RecordBatch, schema: pa.Schema, max_bytes: int) -> pa.RecordBatch:
    """A batch with the stored types.

    Raises:
        InvalidInput: A number that the stored type cannot hold.
        EpochdError: DATA_TOO_LARGE, before a dictionary's text is written out.
    """
    expanded = sum(_text_bytes(column) for column in batch.columns)
    if expanded > max_bytes:
        raise too_large(max_bytes)
    columns = [_cast(column, field) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    # Only nanoseconds have more digits than are kept; a longer unit may overflow, and then says so.
    is_finer = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
    try:
        return column.cast(field.type, safe=not is_finer)
    except pa.ArrowInvalid:
        problem = f"column {field.name[:_SHOWN]!r} has a value that {field.type} cannot hold"
        raise malformed(problem) from None


def _text_bytes(column: pa.Array) -> int:
    """Bytes of text that a dictionary column stands for; 0 for all others."""
    if not pa.types.is_dictionary(column.type):
        return 0
    lengths = pc.binary_length(column.dictionary.cast(pa.large_string()))
    return pc.sum(pc.take(lengths, column.indices)).as_py() or 0
