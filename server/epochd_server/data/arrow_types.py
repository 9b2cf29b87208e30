"""Which Arrow types a dataset may have, and what they become when it is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
}
"""The numeric types that are stored; text is stored as ``string``."""
ARROW_TYPES = {name: arrow_type for arrow_type, name in _NUMPY_NAMES.items()}
"""numpy's name → Arrow type."""


def numpy_name(stored: pa.DataType) -> str | None:
    """Numpy's name of a stored column's element type; None for text."""
    return _NUMPY_NAMES.get(stored)


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """A column of numbers as NumPy has it, without a copy where that is possible; missing ones are NaN.

    pyarrow's own conversion imports pandas where that is installed, which takes a worker a second.
    """
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
    return given if given in _NUMPY_NAMES else None


def _is_text(given: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    )
