"""One column of a table: whatever a data frame holds, as numbers or as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._wire.tensors import as_array, data_type, wire_array
from epochd.errors import invalid
from epochd.v1 import tensor_pb2


@dataclass(frozen=True, slots=True)
class Column:
    """A named column; ``values`` has one dimension and is numeric, boolean, or an object array of str."""

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
        return sum(map(len, self.values)) + 3 * len(self.values)

    def encode(self, start: int = 0, stop: int | None = None) -> tensor_pb2.Column:
        """The message of the rows from ``start`` to ``stop``."""
        values = self.values[start:stop]
        if self.is_text:
            return tensor_pb2.Column(name=self.name, strings=tensor_pb2.Strings(values=values))
        tensor = tensor_pb2.Tensor(
            dtype=data_type(values.dtype.name),
            shape=values.shape,
            data=np.ascontiguousarray(values).tobytes(),
        )
        return tensor_pb2.Column(name=self.name, tensor=tensor)


def make_column(name: str, values: Any) -> Column:
    """A column of a list, array, Series or Arrow array.

    Missing numbers become NaN, booleans with missing values floats. A single value is a column of one row.

    Raises:
        InvalidArgument: When the values are no column, mix text and numbers, lack a text, or are dates or objects.
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
    if array.dtype.kind in "mM":
        raise invalid(name, "holds dates or times; turn them into numbers, such as days since a date")
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
        if missing.any():
            row = int(missing.argmax())
            raise invalid(name, f"lacks a text in row {row}; fill it (such as with '') or drop the row")
        return np.asarray([str(value) for value in array], dtype=object)
    if any(texts):
        raise invalid(name, "mixes text and numbers; make it one of them")
    if not missing.any() and all(isinstance(value, bool | np.bool_) for value in array):
        return array.astype(bool)
    try:
        return np.fromiter(_numbers(array, missing), dtype=np.float64, count=len(array))
    except (TypeError, ValueError):
        raise invalid(name, "must hold numbers, booleans or text") from None


def _numbers(array: NDArray[Any], missing: NDArray[np.bool_]) -> Iterator[float]:
    return (np.nan if gone else float(value) for value, gone in zip(array, missing, strict=True))


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
