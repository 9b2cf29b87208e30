"""Tensors as they are on the wire ↔ numpy arrays and raw bytes.

Everything a tensor claims is checked before anything of its size is allocated. Elements are little-endian on
the wire whatever this machine is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import tensor_pb2 as pb
from epochd_server.domain.errors import Violations
from epochd_server.domain.tensors import RawTensor

MAX_DIMENSIONS = 16
_MAX_BYTES = 2**63 - 1
_WIDEST = 8
_SMALL = 4096
"""Bytes up to which a tensor is copied into an array that may be written to: its reader would do so for more."""
_FEW = 64
"""Up to so many numbers np.fromiter is faster than the conversion of the whole container."""

BFLOAT16 = "bfloat16"
NAMES = MappingProxyType(
    {
        int(value): name.removeprefix("DATA_TYPE_").lower()
        for name, value in pb.DataType.items()
        if value != pb.DATA_TYPE_UNSPECIFIED
    }
)
"""DataType number → name in PyTorch and NumPy, such as ``float32``."""
NUMBERS = MappingProxyType({name: pb.DataType.ValueType(number) for number, name in NAMES.items()})
"""Name in PyTorch and NumPy → DataType number."""
_WIRE = MappingProxyType(
    {name: np.dtype(np.uint16 if name == BFLOAT16 else name).newbyteorder("<") for name in NAMES.values()}
)
_CONVERTED = frozenset({"bool", BFLOAT16} if sys.byteorder == "little" else NAMES.values())
"""Types whose bytes need a look, or are not used as they are."""


def decode_dtype(number: int, violations: Violations, field: str = "dtype") -> str | None:
    """The name of a DataType; None, and a violation, where it is unset or unknown."""
    name = NAMES.get(number)
    if name is None:
        violations.add(field, "must be set" if number == 0 else f"{number} is no known DataType")
    return name


def decode_raw(message: pb.Tensor, violations: Violations) -> RawTensor | None:
    """A tensor's checked type, shape and bytes; the bytes are the message's own unless it holds plain numbers.

    Returns:
        None, and everything wrong in ``violations``, where the tensor is malformed.
    """
    decoded = _decode(message, violations)
    if decoded is None:
        return None
    dtype, shape, elements = decoded
    data = elements if isinstance(elements, bytes) else elements.tobytes()
    return RawTensor(dtype, shape, memoryview(data))


def decode_tensor(message: pb.Tensor, violations: Violations) -> NDArray[np.generic] | None:
    """The tensor as an array: unless it is small, a read-only one over the message's own bytes where they fit.

    bfloat16 becomes float32, which holds every bfloat16 exactly.

    Returns:
        None, and everything wrong in ``violations``, where the tensor is malformed.
    """
    array = plain_tensor(message)
    if array is not None:
        return array
    decoded = _decode(message, violations)
    if decoded is None:
        return None
    dtype, shape, elements = decoded
    array = (
        np.ndarray(shape, _WIRE[dtype], elements) if isinstance(elements, bytes) else elements.reshape(shape)
    )
    if dtype == BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def plain_tensor(message: pb.Tensor) -> NDArray[np.generic] | None:
    """What :func:`decode_tensor` gives for most tensors, at a glance; None for whatever needs a closer look.

    A small Predict is made of such glances: to ask one question after another would take most of its time.
    """
    shape = tuple(message.shape[:])  # a slice, as protobuf's own containers are slow to iterate over
    if len(shape) > MAX_DIMENSIONS:
        return None
    number = message.dtype
    dtype, nbytes = _layout(number, shape)
    if not nbytes:
        return None
    if number == 0:  # DATA_TYPE_UNSPECIFIED, which only plain numbers may have
        values = decode_numbers(message.numbers)
        return values.reshape(shape) if values.nbytes == nbytes else None
    data = message.data
    if len(data) != nbytes:
        return None
    return np.ndarray(shape, dtype, data if nbytes > _SMALL else bytearray(data))


@lru_cache(maxsize=1024)
def _layout(number: int, shape: tuple[int, ...]) -> tuple[np.dtype[np.generic], int]:
    """How elements are sent and the bytes that they take; 0 where something is wrong or must be converted."""
    name = "float64" if number == 0 else NAMES.get(number)
    if name is None or name in _CONVERTED or not _is_addressable(shape):
        return _WIRE["float64"], 0
    return _WIRE[name], math.prod(shape) * _WIRE[name].itemsize


def decode_shape(
    sizes: Sequence[int], violations: Violations, field: str = "shape"
) -> tuple[int, ...] | None:
    """A shape that every tensor library can address; None, and a violation, where it is not one."""
    if len(sizes) > MAX_DIMENSIONS:
        violations.add(field, f"has {len(sizes)} dimensions, at most {MAX_DIMENSIONS} are allowed")
        return None
    shape = tuple(sizes[:])  # a slice, as protobuf's own containers are slow to iterate over
    if _is_addressable(shape):
        return shape
    negative = [axis for axis, size in enumerate(shape) if size < 0]
    for axis in negative:
        violations.add(f"{field}[{axis}]", f"must be >= 0, is {shape[axis]}")
    if not negative:
        violations.add(field, "is too large: the product of the dimensions overflows 64 bits")
    return None


@lru_cache(maxsize=1024)
def _is_addressable(shape: tuple[int, ...]) -> bool:
    # Libraries refuse a huge stride even where another dimension is 0.
    return min(shape, default=0) >= 0 and math.prod(filter(None, shape)) * _WIDEST <= _MAX_BYTES


def encode_tensor(array: NDArray[np.generic]) -> pb.Tensor:
    """The message of an array of any type that DataType has and numpy knows.

    Raises:
        KeyError: The array's type has no DataType.
    """
    message = pb.Tensor()
    fill_tensor(message, array)
    return message


def fill_tensor(message: pb.Tensor, array: NDArray[np.generic]) -> None:
    """Makes an empty message that of an array, as :func:`encode_tensor` does; in place nothing is copied twice.

    Raises:
        KeyError: The array's type has no DataType.
    """
    number, wire = _encoding(array.dtype)
    message.dtype = number
    message.shape.extend(array.shape)
    message.data = (array if array.dtype == wire else array.astype(wire)).tobytes()


@lru_cache(maxsize=64)
def _encoding(dtype: np.dtype[np.generic]) -> tuple[pb.DataType.ValueType, np.dtype[np.generic]]:
    """The number of a type and how it is sent. Remembered: numpy takes microseconds to name a type."""
    return NUMBERS[dtype.name], _WIRE[dtype.name]


def encode_raw(tensor: RawTensor) -> pb.Tensor:
    """The message of a tensor that is bytes already."""
    return pb.Tensor(dtype=NUMBERS[tensor.dtype], shape=tensor.shape, data=bytes(tensor.data))


def decode_numbers(message: pb.Numbers) -> NDArray[np.float64]:
    """Plain numbers as float64."""
    values = message.values
    if len(values) <= _FEW:
        return np.fromiter(values, np.float64, len(values))
    return np.array(values, np.float64)


def item_size(dtype: str) -> int:
    """Bytes an element of a type named as in PyTorch."""
    return _WIRE[dtype].itemsize


def _decode(
    message: pb.Tensor, violations: Violations
) -> tuple[str, tuple[int, ...], bytes | NDArray[np.generic]] | None:
    """A tensor's type, shape and as many elements in wire form: the message's bytes, or an array of its numbers."""
    kind = message.WhichOneof("elements")
    dtype = _dtype(message, kind, violations)
    shape = decode_shape(message.shape, violations)
    if shape is None or dtype is None:
        return None
    count = math.prod(shape)
    if kind == "numbers":
        array = _numbers(message.numbers, dtype, count, violations)
        return None if array is None else (dtype, shape, array)
    if kind is None and count:
        violations.add("elements", f"must be set: data or numbers, {count} of them")
        return None
    data = message.data  # every access makes a copy
    return (dtype, shape, data) if _length_fits(data, dtype, count, violations) else None


def _dtype(message: pb.Tensor, kind: str | None, violations: Violations) -> str | None:
    number = message.dtype
    if number == 0 and kind != "data":  # DATA_TYPE_UNSPECIFIED
        return "float64"
    return NAMES.get(number) or decode_dtype(number, violations)


def _length_fits(data: bytes, dtype: str, count: int, violations: Violations) -> bool:
    expected = count * _WIRE[dtype].itemsize
    if len(data) != expected:
        violations.add("data", f"has {len(data)} bytes, but {count} elements of {dtype} are {expected} bytes")
        return False
    if dtype == "bool" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        violations.add("data", "holds bytes other than 0 and 1, but dtype is bool")
        return False
    return True


def _numbers(
    message: pb.Numbers, dtype: str, count: int, violations: Violations
) -> NDArray[np.generic] | None:
    """Plain numbers in the wire form of ``dtype``."""
    if len(message.values) != count:
        violations.add("numbers", f"has {len(message.values)} numbers, but the shape needs {count}")
        return None
    values = decode_numbers(message)
    wire = _WIRE[dtype]
    if dtype == BFLOAT16:
        return _to_bfloat16(values)
    if wire.kind != "f":
        return _to_integers(values, dtype, violations)
    if wire == values.dtype:
        return values
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(wire)


def _to_integers(
    values: NDArray[np.float64], dtype: str, violations: Violations
) -> NDArray[np.generic] | None:
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    # float(2**63 - 1) is 2**63, which int64 cannot hold; `high + 1` is exact for every type.
    fits = (values >= float(low)) & (values < float(high + 1)) & (np.floor(values) == values)
    if not fits.all():
        index = int(np.argmin(fits))
        violations.add(f"numbers.values[{index}]", f"{values[index]:g} cannot be held by {dtype}")
        return None
    return values.astype(_WIRE[dtype])


def _to_bfloat16(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Rounds to the nearest bfloat16, ties to even, by way of float32 rounded to odd.

    Rounding to odd first makes the double rounding exact (S. Boldo and G. Melquiond, 2008).
    """
    with np.errstate(over="ignore", under="ignore"):
        nearest = values.astype(np.float32)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(values)
    truncated = np.where(too_far, np.nextafter(nearest, np.float32(0)), nearest)
    inexact = (truncated.astype(np.float64) != values) & ~np.isnan(values)
    bits = truncated.view(np.uint32) | inexact
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(_WIRE[BFLOAT16])
