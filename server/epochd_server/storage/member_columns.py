"""What became of a fleet's members, as the bytes of an Arrow file with a column for each fact.

Numbers are read where they lie: a large fleet's columns are pages of its mapped file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from epochd_server.domain.fleets import Keys, Members

_KEY_COLUMNS = b"key_columns"
_FACTS = ("states", "rows", "epochs", "final_losses")


def pack(members: Members) -> bytes:
    """An Arrow file; the same members always give the same bytes."""
    arrays = [_to_arrow(column) for column in members.keys.columns]
    names = [f"key{index}" for index in range(len(arrays))]
    arrays += [pa.array(getattr(members, name)) for name in _FACTS]
    arrays.append(_reasons_to_arrow(members.reasons, len(members.keys)))
    metadata = {_KEY_COLUMNS: json.dumps(members.keys.names)}
    table = pa.table(arrays, names=[*names, *_FACTS, "reason"]).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(data: memoryview) -> Members:
    """The members of a file that :func:`pack` made."""
    with pa.ipc.open_file(pa.py_buffer(data)) as reader:
        batch = reader.get_batch(0)
    names = tuple(json.loads(batch.schema.metadata[_KEY_COLUMNS]))
    keys = tuple(_to_numpy(batch.column(index)) for index in range(len(names)))
    facts: dict[str, Any] = {name: _to_numpy(batch.column(name)) for name in _FACTS}
    return Members(keys=Keys(names, keys), reasons=_reasons_to_mapping(batch.column("reason")), **facts)


def _to_arrow(column: NDArray[np.generic]) -> pa.Array:
    return pa.array(column, pa.large_string() if column.dtype == object else None)


def _to_numpy(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _reasons_to_arrow(reasons: Mapping[int, str], members: int) -> pa.Array:
    """One text a member, each distinct one stored once; null where there is none."""
    distinct = sorted(set(reasons.values()))
    numbers = {reason: number for number, reason in enumerate(distinct)}
    codes = np.zeros(members, np.int32)
    has_none = np.ones(members, np.bool_)
    for member, reason in reasons.items():
        codes[member], has_none[member] = numbers[reason], False
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=has_none), pa.array(distinct, pa.string()))


def _reasons_to_mapping(column: pa.DictionaryArray) -> Mapping[int, str]:
    failed = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return dict(zip(failed.tolist(), column.take(pa.array(failed)).to_pylist(), strict=True))
