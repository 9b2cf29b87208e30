"""Which Arrow types a dataset may have, and what they become when it is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from epochd_server.domain.data import ColumnKind, kind_of_dtype

_NUMPY_NAMES = {
    pa.bool_(): "bool",
    pa.int8(): "int8",
    pa.int16(): "int16",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.uint8(): "uint8",
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.timestamp("us"): "datetime64[us]",
}
"""The types that are stored besides text, which is ``string``; timestamps are in UTC."""
_NO_TIME = np.iinfo(np.int64).min
"""NaT."""
ARROW_TYPES = {name: type_ for type_, name in _NUMPY_NAMES.items() if not pa.types.is_timestamp(type_)}
"""Of numbers: numpy's name → Arrow type."""


def numpy_name(stored: pa.DataType) -> str | None:
    """Numpy's name of a stored column's element type; None for text."""
    return _NUMPY_NAMES.get(stored)


def kind_of(stored: pa.DataType) -> ColumnKind:
    """What a stored column holds."""
    name = numpy_name(stored)
    return ColumnKind.TEXT if name is None else kind_of_dtype(np.dtype(name))


def is_text(stored: pa.DataType) -> bool:
    """Whether a stored column holds text."""
    return numpy_name(stored) is None


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """A column of numbers as NumPy has it, without a copy where that is possible; missing ones are NaN.

    pyarrow's own conversion imports pandas where that is installed, which takes a worker a second.
    """
    if pa.types.is_timestamp(array.type):
        return np.from_dlpack(array.cast(pa.int64()).fill_null(_NO_TIME)).view("M8[us]")
    if pa.types.is_boolean(array.type) and not array.null_count:
        return np.from_dlpack(array.cast(pa.uint8())).view(np.bool_)
    if array.null_count:
        floating = array if pa.types.is_floating(array.type) else array.cast(pa.float64())
        array = floating.fill_null(float("nan"))
    return np.from_dlpack(array)


def from_numpy(values: NDArray[np.generic]) -> pa.Array:
    """Numbers as an Arrow array, without a copy where that is possible; see :func:`to_numpy`."""
    if values.dtype == np.bool_:
        return from_numpy(values.view(np.uint8)).cast(pa.bool_())
    if values.dtype.kind == "M":
        micros = values.astype("M8[us]", copy=False).view(np.int64)
        return pa.array(micros, pa.timestamp("us"), mask=micros == _NO_TIME)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(ARROW_TYPES[values.dtype.name], len(values), [None, buffer])


def storable(given: pa.DataType) -> pa.DataType | None:
    """The type that a column of type ``given`` is stored as; None where a dataset cannot have it."""
    if given in _NUMPY_NAMES:
        return given
    if pa.types.is_dictionary(given):
        given = given.value_type
    if _is_text(given):
        return pa.string()
    if pa.types.is_uint16(given):
        return pa.int32()
    if pa.types.is_unsigned_integer(given):
        return pa.int64()
    if pa.types.is_decimal(given) or pa.types.is_null(given):
        return pa.float64()
    if pa.types.is_timestamp(given) or pa.types.is_date(given):
        return pa.timestamp("us")
    return given if given in _NUMPY_NAMES else None


def _is_text(given: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    )
