"""Tables: messages → domain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import tensor_pb2 as pb
from epochd_server.codec.tensors import decode_numbers, decode_tensor
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import Violations

MAX_COLUMNS = 10_000
MAX_NAME = 256
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def decode_table(message: pb.Table, violations: Violations) -> Table | None:
    """A table; field paths are relative to it. It may have no rows.

    Returns:
        None, and everything wrong in ``violations``, where it is malformed.
    """
    before = len(violations.found)
    count = len(message.columns)
    if not 1 <= count <= MAX_COLUMNS:
        violations.add("columns", f"must have 1 to {MAX_COLUMNS:,} columns, has {count:,}")
        return None
    messages = message.columns[:]  # a slice, as protobuf's own containers are slow to iterate over
    check_names([column.name for column in messages], violations)
    columns = tuple([_decode_column(index, column, violations) for index, column in enumerate(messages)])
    if len(violations.found) > before:
        return None
    _check_lengths(columns, violations)
    return Table(columns) if len(violations.found) == before else None


def check_names(names: Sequence[str], violations: Violations) -> None:
    """Adds what is wrong with columns' names, at ``columns[3].name`` and the like."""
    if _are_sound(names):
        return
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        problem = wrong_name(name)
        if problem is None and first.setdefault(name, index) != index:
            problem = f"{name!r} is the name of columns[{first[name]}] already"
        if problem is not None:
            violations.add(f"columns[{index}].name", problem)


def _are_sound(names: Sequence[str]) -> bool:
    """Whether nothing is wrong with names; faster than to look for what is, name by name."""
    lengths = [*map(len, names)]
    return (
        min(lengths, default=1) >= 1
        and max(lengths, default=1) <= MAX_NAME
        and len(set(names)) == len(names)
        and _CONTROL.search("".join(names)) is None
    )


def wrong_name(name: str) -> str | None:
    """Why ``name`` cannot name a column, or None where it can."""
    if not 1 <= len(name) <= MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters, has {len(name)}"
    if _CONTROL.search(name):
        return f"{name[:40]!r} has control characters"
    return None


def _decode_column(index: int, message: pb.Column, violations: Violations) -> Column:
    values = _decode_values(index, message, violations)
    if message.missing_rows:
        values = _without(index, values, message.missing_rows, violations)
    return Column(message.name, values)


def _without(
    index: int, values: NDArray[np.generic], missing: Sequence[int], violations: Violations
) -> NDArray[np.generic]:
    """The values with None, NaT or NaN in some rows; integers and truth values become float64 for it."""
    rows = np.array(missing, np.int64)
    if values.ndim != 1:  # which is told already
        return values
    if rows.min() < 0 or rows.max() >= len(values) or (np.diff(rows) <= 0).any():
        rule = f"must be ascending rows, counted from 0, of the {len(values)} there are"
        violations.add(f"columns[{index}].missing_rows", rule)
        return values
    filled = values.astype(np.float64) if values.dtype.kind in "iub" else values.copy()
    filled[rows] = _MISSING[filled.dtype.kind]
    return filled


def _decode_values(index: int, message: pb.Column, violations: Violations) -> NDArray[np.generic]:
    match message.WhichOneof("values"):
        case "numbers":
            return decode_numbers(message.numbers)
        case "strings":
            values = message.strings.values
            texts: NDArray[np.generic] = np.empty(len(values), dtype=object)
            texts[:] = values
            return texts
        case "tensor":
            with violations.within(f"columns[{index}].tensor"):
                return _decode_vector(message.tensor, violations)
        case "timestamps":
            return np.array(message.timestamps.microseconds, np.int64).view("M8[us]")
        case None:
            rule = "must be set: numbers, strings, tensor or timestamps"
            violations.add(f"columns[{index}].values", rule)
            return _NOTHING


def _decode_vector(message: pb.Tensor, violations: Violations) -> NDArray[np.generic]:
    array = decode_tensor(message, violations)
    if array is None:
        return _NOTHING
    if array.ndim != 1:
        violations.add("shape", f"must have one dimension, has {array.ndim}")
    return array


def _check_lengths(columns: Sequence[Column], violations: Violations) -> None:
    rows = len(columns[0].values)
    for index, column in enumerate(columns):
        if len(column.values) != rows:
            violations.add(
                f"columns[{index}]",
                f"{column.name!r} has {len(column.values)} rows, but {columns[0].name!r} has {rows}",
            )


_NOTHING: NDArray[np.generic] = np.empty(0)
_MISSING: Mapping[str, Any] = MappingProxyType({"O": None, "f": np.nan, "M": np.datetime64("NaT")})
