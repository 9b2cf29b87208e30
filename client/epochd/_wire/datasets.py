"""Descriptions and first rows of datasets, out of messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._wire.tensors import decode_tensor
from epochd.descriptions import ColumnDescription, Description
from epochd.v1 import datasets_pb2, preprocessing_pb2, tensor_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def decode_description(message: datasets_pb2.DescribeDatasetResponse) -> Description:
    """The description of a dataset."""
    return Description(tuple(map(_column, message.columns)), rows=message.dataset.rows)


def decode_table(table: tensor_pb2.Table) -> dict[str, NDArray[Any]]:
    """Columns by name: numbers, datetime64[us], or objects of str and None."""
    return {column.name: _values(column) for column in table.columns}


def _column(message: datasets_pb2.ColumnDescription) -> ColumnDescription:
    kind = preprocessing_pb2.ColumnKind.Name(message.kind).removeprefix("COLUMN_KIND_").lower()
    is_time = kind == "timestamp"
    ends: tuple[Any, Any] = (
        (_time(message, "earliest_microseconds"), _time(message, "latest_microseconds"))
        if is_time
        else (_number(message, "min"), _number(message, "max"))
    )
    return ColumnDescription(
        message.name,
        kind,
        missing=message.missing,
        distinct=message.distinct,
        distinct_is_estimate=message.distinct_is_estimate,
        min=ends[0],
        max=ends[1],
        mean=_number(message, "mean"),
        std=_number(message, "std"),
    )


def _number(message: datasets_pb2.ColumnDescription, field: Any) -> float | None:
    return float(getattr(message, field)) if message.HasField(field) else None


def _time(message: datasets_pb2.ColumnDescription, field: Any) -> datetime | None:
    """A time, or the first or last that a datetime can be."""
    if not message.HasField(field):
        return None
    try:
        return _EPOCH + timedelta(microseconds=getattr(message, field))
    except OverflowError:
        return _LAST if getattr(message, field) > 0 else _FIRST


def _values(column: tensor_pb2.Column) -> NDArray[Any]:
    kind, missing = column.WhichOneof("values"), list(column.missing_rows)
    if kind == "tensor":
        return decode_tensor(column.tensor)
    if kind == "timestamps":
        times = np.array(column.timestamps.microseconds, np.int64).view("M8[us]")
        times[missing] = np.datetime64("NaT")
        return times
    values = column.strings.values if kind == "strings" else column.numbers.values
    array = np.empty(len(values), dtype=object if kind == "strings" else np.float64)
    array[:] = values
    array[missing] = None if kind == "strings" else np.nan
    return array
