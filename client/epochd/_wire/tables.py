"""Tables of any kind as columns: dicts, pandas and polars frames, Arrow tables. None of them is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._wire.columns import Column, make_column
from epochd.errors import InvalidArgument, Violation, invalid
from epochd.v1 import tensor_pb2


@dataclass(frozen=True, slots=True)
class Table:
    """Named columns of one length."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise invalid("data", f"has more than one column named {', '.join(map(repr, repeated))}")
        lengths = {column.name: len(column.values) for column in self.columns}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise invalid("data", f"has columns of different lengths ({listed})")

    @property
    def names(self) -> list[str]:
        """The columns' names in order."""
        return [column.name for column in self.columns]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0].values) if self.columns else 0

    @property
    def nbytes(self) -> int:
        """About how many bytes the table has as a message."""
        return sum(column.nbytes + len(column.name) + 32 for column in self.columns)

    def encode(self, start: int = 0, stop: int | None = None) -> tensor_pb2.Table:
        """The message of the rows from ``start`` to ``stop``."""
        return tensor_pb2.Table(columns=[column.encode(start, stop) for column in self.columns])

    def batches(self, nbytes: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows, each of about ``nbytes`` as a message and of at least one row."""
        rows = max(1, nbytes * self.rows // max(1, self.nbytes))
        return ((start, min(start + rows, self.rows)) for start in range(0, self.rows, rows))

    def select(self, names: Sequence[str]) -> Table:
        """The table of these columns only.

        Raises:
            InvalidArgument: Naming every column that there is not.
        """
        by_name = {column.name: column for column in self.columns}
        missing = [
            Violation(name, f"no such column; there are {', '.join(self.names)}")
            for name in names
            if name not in by_name
        ]
        if missing:
            raise InvalidArgument("The table lacks columns.", violations=missing)
        return Table(tuple(by_name[name] for name in names))


def is_table(data: Any) -> bool:
    """Whether the data has named columns."""
    return isinstance(data, Mapping | Table) or hasattr(data, "column_names") or _is_frame(data)


def as_table(data: Any) -> Table:
    """The table of a mapping, a pandas or polars frame, or an Arrow table.

    Raises:
        InvalidArgument: When a column cannot be sent, or names or lengths do not fit.
    """
    if isinstance(data, Table):
        return data
    return Table(tuple(make_column(name, values) for name, values in _named_columns(data)))


def matrix_table(features: NDArray[Any], names: Sequence[str]) -> Table:
    """The table of a matrix [rows, features]; its columns are views, not copies."""
    return Table(tuple(make_column(name, features[:, index]) for index, name in enumerate(names)))


def feature_names(count: int) -> list[str]:
    """The names that the server gives to the features of tensors: ``x0``, ``x1`` …"""
    return [f"x{index}" for index in range(count)]


def as_matrix(values: NDArray[Any], field: str) -> NDArray[Any]:
    """Rows as [rows, features]; one dimension is one feature.

    Raises:
        InvalidArgument: Naming ``field``, for any other number of dimensions.
    """
    if values.ndim == 1:
        return values.reshape(-1, 1)
    if values.ndim != 2:
        raise invalid(field, f"must have the shape [rows, features] or [rows], has {list(values.shape)}")
    return values


def _is_frame(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "__getitem__") and not isinstance(data, np.ndarray)


def _named_columns(data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping):
        return ((str(name), values) for name, values in data.items())
    if hasattr(data, "column_names"):  # Arrow
        return ((str(name), data.column(index)) for index, name in enumerate(data.column_names))
    if hasattr(data, "iloc"):  # pandas; by position, as names may repeat
        return ((str(name), data.iloc[:, index]) for index, name in enumerate(data.columns))
    return ((str(name), data[name]) for name in data.columns)
