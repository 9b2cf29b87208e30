"""Arrays of any library as NumPy arrays, and NumPy arrays as messages. Wire data is little-endian and row-major."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd.errors import DataLoss
from epochd.v1 import tensor_pb2

_DTYPES = {
    "bool": tensor_pb2.DATA_TYPE_BOOL,
    "int8": tensor_pb2.DATA_TYPE_INT8,
    "int16": tensor_pb2.DATA_TYPE_INT16,
    "int32": tensor_pb2.DATA_TYPE_INT32,
    "int64": tensor_pb2.DATA_TYPE_INT64,
    "uint8": tensor_pb2.DATA_TYPE_UINT8,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb2.DATA_TYPE_BFLOAT16,
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float64": tensor_pb2.DATA_TYPE_FLOAT64,
}
_NAMES = {number: name for name, number in _DTYPES.items()}
_WIDER = {
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "float64",
    "longdouble": "float64",
    "float128": "float64",
}


def as_array(value: Any) -> NDArray[Any]:
    """A NumPy array of anything that is one: lists, numbers, torch tensors, Series, whatever has ``__array__``.

    Torch is recognised by its methods and never imported; bfloat16, which NumPy lacks, becomes float32 there.
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        tensor = value.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def data_type(name: str) -> tensor_pb2.DataType.ValueType:
    """The enum value of an element type.

    Raises:
        TypeError: When tensors cannot have it.
    """
    try:
        return _DTYPES[name]
    except KeyError:
        raise TypeError(f"no tensor can hold {name}; one of {', '.join(_DTYPES)} can") from None


def dtype_name(number: int) -> str:
    """NumPy's and PyTorch's name of an element type; empty for an unknown one."""
    return _NAMES.get(number, "")  # type: ignore[call-overload, no-any-return]


def wire_array(array: NDArray[Any]) -> NDArray[Any]:
    """The array with an element type that tensors have, little-endian; a copy only where one is needed.

    Raises:
        TypeError: When the elements are no numbers.
    """
    wider = _WIDER.get(array.dtype.name)
    if wider == "float64" and array.dtype.name == "uint64" and (not array.size or array.max() < 2**63):
        wider = "int64"
    if wider:
        array = array.astype(wider)
    data_type(array.dtype.name)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def encode_tensor(value: Any) -> tensor_pb2.Tensor:
    """The message of an array.

    Raises:
        TypeError: When the elements are no numbers.
    """
    array = wire_array(as_array(value))
    return tensor_pb2.Tensor(dtype=data_type(array.dtype.name), shape=array.shape, data=array.tobytes())


def decode_tensor(tensor: tensor_pb2.Tensor, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """The array of a message, writable and in memory of its own.

    Args:
        tensor: The message.
        dtype: A 2-byte type to read bfloat16 as, such as that of ml_dtypes; without, bfloat16 becomes float32.

    Raises:
        DataLoss: When data and shape disagree.
    """
    shape = tuple(tensor.shape)
    name = dtype_name(tensor.dtype) or "float64"
    if tensor.WhichOneof("elements") == "numbers":
        flat = np.array(tensor.numbers.values, dtype="float32" if name == "bfloat16" else name)
    else:
        flat = from_bytes(tensor.data, name, dtype)
    if flat.size != math.prod(shape):
        raise DataLoss(f"A tensor of shape {shape} came with {flat.size} elements.", reason="BAD_RESPONSE")
    return flat.reshape(shape)


def from_bytes(data: bytes, name: str, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """A flat array of little-endian bytes; see :func:`decode_tensor`."""
    if name != "bfloat16":
        return np.frombuffer(data, np.dtype(name).newbyteorder("<")).astype(name)
    if dtype is not None and dtype.name == "bfloat16":
        return np.frombuffer(data, dtype).copy()
    # A bfloat16 is the upper half of a float32.
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def byte_view(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, without a copy; writable if the array is."""
    return memoryview(array.reshape(-1).view(np.uint8).data) if array.size else memoryview(b"")


def byte_chunks(array: NDArray[Any], size: int) -> Iterator[bytes]:
    """The array's elements as little-endian, row-major bytes in pieces of at most ``size``, copying one at a time."""
    if array.flags.c_contiguous:
        whole = byte_view(array)
        for start in range(0, len(whole), size):
            yield bytes(whole[start : start + size])
        return
    step = max(1, size // array.itemsize)
    for start in range(0, array.size, step):
        yield array.flat[start : start + step].tobytes()
