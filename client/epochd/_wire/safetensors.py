"""Reads a safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes."""

from __future__ import annotations

import json
from typing import Any

from numpy.typing import NDArray

from epochd._wire.tensors import from_bytes
from epochd.errors import DataLoss

_NAMES = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip


def read_safetensors(data: bytes | bytearray) -> dict[str, NDArray[Any]]:
    """The tensors by name, in the order that the server's ``parameters`` in the metadata gives them.

    Raises:
        DataLoss: When it is no safetensors file, or its header and its length disagree.
    """
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(bytes(data[8:start]))
        metadata = header.pop("__metadata__", {})
        order = {name: place for place, name in enumerate(json.loads(metadata.get("parameters", "[]")))}
        body = memoryview(data)[start:]
        names = sorted(header, key=lambda name: order.get(name, len(order)))
        return {name: _tensor(header[name], body) for name in names}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataLoss(f"The export is no safetensors file ({error}).", reason="BAD_RESPONSE") from None


def _tensor(entry: dict[str, Any], body: memoryview) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(body):
        raise ValueError("a tensor lies outside of the file")
    return from_bytes(bytes(body[begin:end]), _NAMES[entry["dtype"]]).reshape(entry["shape"])
