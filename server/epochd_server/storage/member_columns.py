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

from epochd_server.domain.fleets import HeldOut, Keys, Members
from epochd_server.domain.validation import Metric

_KEY_COLUMNS = b"key_columns"
_METRIC = "metric:"
_STATISTIC = "statistic:"
_LEARNED = "learned"
_FACTS = ("states", "rows", "epochs", "final_losses")


def pack(members: Members) -> bytes:
    """An Arrow file; the same members always give the same bytes."""
    arrays = [_to_arrow(column) for column in members.keys.columns]
    names = [f"key{index}" for index in range(len(arrays))]
    arrays += [pa.array(getattr(members, name)) for name in _FACTS]
    arrays.append(_reasons_to_arrow(members.reasons, len(members.keys)))
    held_out = {} if members.held_out is None else _held_out_columns(members.held_out)
    arrays += [pa.array(np.ascontiguousarray(column)) for column in held_out.values()]
    statistics = {f"{_STATISTIC}{name}": column for name, column in members.statistics.items()}
    if members.learned is not None:
        statistics[_LEARNED] = members.learned
    arrays += [_lists_to_arrow(column) for column in statistics.values()]
    metadata = {_KEY_COLUMNS: json.dumps(members.keys.names)}
    metadata |= {name.encode(): json.dumps(column.shape) for name, column in statistics.items()}
    table = pa.table(arrays, names=[*names, *_FACTS, "reason", *held_out, *statistics])
    table = table.replace_schema_metadata(metadata)
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
    return Members(
        keys=Keys(names, keys),
        reasons=_reasons_to_mapping(batch.column("reason")),
        held_out=_to_held_out(batch) if "validation_losses" in batch.schema.names else None,
        statistics=_to_statistics(batch),
        learned=_to_learned(batch) if _LEARNED in batch.schema.names else None,
        **facts,
    )


def _lists_to_arrow(column: NDArray[np.generic]) -> pa.Array:
    """A column [K, …] with the numbers of each member as one list."""
    flat = np.ascontiguousarray(column).reshape(len(column), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])


def _to_statistics(batch: pa.RecordBatch) -> dict[str, NDArray[np.floating]]:
    names = [name for name in batch.schema.names if name.startswith(_STATISTIC)]
    return {
        name.removeprefix(_STATISTIC): _to_numpy(batch.column(name).flatten()).reshape(
            json.loads(batch.schema.metadata[name.encode()])
        )
        for name in names
    }


def _to_learned(batch: pa.RecordBatch) -> NDArray[np.float64]:
    return _to_numpy(batch.column(_LEARNED).flatten()).reshape(batch.num_rows, -1)


def _held_out_columns(held_out: HeldOut) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {
        "validation_rows": held_out.rows,
        "validation_losses": held_out.losses,
        "best_epochs": held_out.best_epochs,
    }
    for position, metric in enumerate(held_out.metrics):
        columns[f"{_METRIC}{metric.value}"] = held_out.values[:, position]
    return columns


def _to_held_out(batch: pa.RecordBatch) -> HeldOut:
    names = [name for name in batch.schema.names if name.startswith(_METRIC)]
    values = [_to_numpy(batch.column(name)) for name in names]
    return HeldOut(
        metrics=tuple(Metric(name.removeprefix(_METRIC)) for name in names),
        rows=_to_numpy(batch.column("validation_rows")),
        losses=_to_numpy(batch.column("validation_losses")),
        values=np.stack(values, axis=1) if values else np.empty((batch.num_rows, 0)),
        best_epochs=_to_numpy(batch.column("best_epochs")),
    )


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
