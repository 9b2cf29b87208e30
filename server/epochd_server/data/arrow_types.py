"""Which Arrow types a dataset may have, and what they become when it is stored."""

from __future__ import annotations

import pyarrow as pa

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
