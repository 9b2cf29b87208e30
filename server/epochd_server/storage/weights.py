"""Parameters as safetensors bytes.

Nothing here depends on shapes: the stacked [K, …] parameters of many models are packed like those of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from epochd_server.domain.runs import Parameters

_ORDER = "parameters"
_HEADER_LENGTH_BYTES = 8
_DTYPES: Mapping[str, type[np.float32 | np.float64]] = MappingProxyType(
    {"F32": np.float32, "F64": np.float64}
)


def pack(parameters: Parameters) -> bytes:
    """A safetensors file; the same parameters always give the same bytes.

    The format sorts tensors by its own rules, so that their order is kept in the file's metadata.
    """
    tensors = {name: np.asarray(value, order="C") for name, value in parameters.items()}
    return bytes(save(tensors, metadata={_ORDER: json.dumps(list(parameters))}))


def unpack(data: memoryview) -> Parameters:
    """The parameters of a file that :func:`pack` made, in their order, as read-only views of its bytes.

    Unlike the library, which copies, this leaves a mapped file where it is: a slab's pages are read when needed.
    """
    begin = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(bytes(data[_HEADER_LENGTH_BYTES:begin]))
    tensors = data[begin:]
    parameters: dict[str, NDArray[np.floating]] = {}
    for name in json.loads(header["__metadata__"][_ORDER]):
        tensor = header[name]
        first, last = tensor["data_offsets"]
        values = np.frombuffer(tensors[first:last], _DTYPES[tensor["dtype"]])
        parameters[name] = values.reshape(tensor["shape"])
    return parameters
