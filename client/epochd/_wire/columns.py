"""One column of a table: whatever a data frame holds, as numbers or as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._wire.tensors import as_array, data_type, wire_array
from epochd.errors import invalid
from epochd.v1 import tensor_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Column:
    """A named column.

    ``values`` has one dimension and is numeric, boolean, datetime64[us], or an object array of str and None.
    """

    name: str
    values: NDArray[Any]

    @property
    def is_text(self) -> bool:
        """Whether the values are str."""
        return bool(self.values.dtype.kind == "O")

    @property
    def nbytes(self) -> int:
        """About how many bytes the column has as a message."""
        if not self.is_text:
            return self.values.nbytes
        return sum(len(text) for text in self.values if text is not None) + 3 * len(self.values)

    def encode(self, start: int = 0, stop: int | None = None) -> tensor_pb2.Column:
        """The message of the rows from ``start`` to ``stop``."""
        values = self.values[start:stop]
        if self.is_text:
            return self._encode_texts(values)
        if values.dtype.kind == "M":
            micros = tensor_pb2.Timestamps(microseconds=values.view(np.int64))
            missing = np.flatnonzero(np.isnat(values))
            return tensor_pb2.Column(name=self.name, timestamps=micros, missing_rows=missing)
        tensor = tensor_pb2.Tensor(
            dtype=data_type(values.dtype.name),
            shape=values.shape,
            data=np.ascontiguousarray(values).tobytes(),
        )
        return tensor_pb2.Column(name=self.name, tensor=tensor)

    def _encode_texts(self, values: NDArray[Any]) -> tensor_pb2.Column:
        try:
            return tensor_pb2.Column(name=self.name, strings=tensor_pb2.Strings(values=values))
        except TypeError:  # None among them, which is seldom
            missing = [row for row, text in enumerate(values) if text is None]
            texts = tensor_pb2.Strings(values=["" if text is None else text for text in values])
            return tensor_pb2.Column(name=self.name, strings=texts, missing_rows=missing)


def make_column(name: str, values: Any) -> Column:
    """A column of a list, array, Series or Arrow array.

    Missing numbers become NaN, booleans with missing values floats, missing texts None. Times are converted to UTC.
    A single value is a column of one row.

    Raises:
        InvalidArgument: When the values are no column, mix text and numbers, or are durations or objects.
    """
    if isinstance(values, list | tuple) and any(isinstance(value, str) for value in values):
        values = np.asarray(values, dtype=object)  # NumPy would turn numbers among texts into texts
    array = np.atleast_1d(as_array(values))
    if array.ndim != 1:
        raise invalid(name, f"must have one value a row, has the shape {array.shape}")
    if array.dtype.kind in "US":
        array = array.astype(np.str_).astype(object)
    elif array.dtype.kind in "OT":
        array = _from_objects(name, array)
    if array.dtype.kind == "O":
        return Column(name, array)
    if array.dtype.kind == "M":
        return Column(name, array.astype("M8[us]"))
    if array.dtype.kind == "m":
        raise invalid(name, "holds durations; turn them into numbers, such as seconds")
    try:
        return Column(name, wire_array(array))
    except TypeError as error:
        raise invalid(name, str(error)) from None


def _from_objects(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Object elements as numbers where they are numbers, as str where all are str."""
    if set(map(type, array)) == {str}:
        return array.astype(object, copy=False)
    missing = np.fromiter((_is_missing(value) for value in array), dtype=bool, count=len(array))
    texts = [isinstance(value, str) for value in array[~missing]]
    if texts and all(texts):
        filled = np.empty(len(array), dtype=object)
        filled[:] = [None if gone else str(value) for value, gone in zip(array, missing, strict=True)]
        return filled
    if not missing.all() and all(isinstance(value, date) for value in array[~missing]):
        return _times(array, missing)
    if any(texts):
        raise invalid(name, "mixes text and numbers; make it one of them")
    if not missing.any() and all(isinstance(value, bool | np.bool_) for value in array):
        return array.astype(bool)
    try:
        return np.fromiter(_numbers(array, missing), dtype=np.float64, count=len(array))
    except (TypeError, ValueError):
        raise invalid(name, "must hold numbers, booleans or text") from None


def _times(array: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Dates and datetimes in UTC; those without a zone are taken as they are."""
    times = [
        np.datetime64("NaT") if gone else np.datetime64(_utc(value), "us")
        for value, gone in zip(array, missing, strict=True)
    ]
    return np.array(times, "M8[us]")


def _utc(value: date) -> date:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return _EPOCH.replace(tzinfo=None) + (value - _EPOCH)
    return value


def _numbers(array: NDArray[Any], missing: NDArray[np.bool_]) -> Iterator[float]:
    return (np.nan if gone else float(value) for value, gone in zip(array, missing, strict=True))


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
