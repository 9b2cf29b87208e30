"""Where the columns of a training come from: a table in the request, tensors in the request, an Arrow file.

Legend: N rows, d features, t targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.texts import encode_texts
from epochd_server.domain.data import Column, ColumnKind, ColumnRoles, Table, TensorPair, default_names

TABLE = "data.table"
FEATURES = "data.tensors.features"
TARGETS = "data.tensors.targets"
_INTEGER_KINDS = "biu"


class Columns(Protocol):
    """Named columns of one length, read one at a time."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order; unique."""

    @property
    def rows(self) -> int:
        """N."""

    @property
    def field(self) -> str:
        """Path of the whole source in a TrainRequest, such as ``data.table``."""

    def column_field(self, index: int) -> str:
        """Path of a column in a TrainRequest, such as ``data.table.columns[3]``."""

    def kind(self, index: int) -> ColumnKind:
        """What a column holds."""

    def is_text(self, index: int) -> bool:
        """Whether a column holds text."""

    def is_integer(self, index: int) -> bool:
        """Whether a column holds integers or truth values; some may be missing."""

    def values(self, index: int) -> NDArray[np.generic]:
        """[N]; text as dtype object, None where it is missing; missing numbers as NaN; times as datetime64[us]."""

    def codes(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """A text column as numbers, as :func:`~epochd_server.data.texts.encode_texts` has it.

        Returns:
            Its distinct texts, ascending (dtype object), and each row's position among them, int64 [N]; -1 where
            a text is missing.
        """

    def fill(self, indices: Sequence[int], out: NDArray[np.floating]) -> None:
        """Writes numeric columns into ``out`` [N, len(indices)], converted to its type; too large becomes inf."""


@runtime_checkable
class PartedColumns(Columns, Protocol):
    """Columns that need not fit memory: they are read some rows at a time."""

    def parts(self, rows: int) -> Iterator[tuple[int, Columns]]:
        """All rows, at most so many at a time, with the place of the first of each part."""


class TableColumns:
    """The columns of a table in the request."""

    field = TABLE

    def __init__(self, table: Table) -> None:
        self._columns = table.columns
        self.names = table.names
        self.rows = table.rows

    def column_field(self, index: int) -> str:
        """Path of a column in a TrainRequest."""
        return f"{TABLE}.columns[{index}]"

    def kind(self, index: int) -> ColumnKind:
        """What a column holds."""
        return self._columns[index].kind

    def is_text(self, index: int) -> bool:
        """Whether a column holds text."""
        return self._columns[index].is_text

    def is_integer(self, index: int) -> bool:
        """Whether a column holds integers or truth values."""
        return self._columns[index].values.dtype.kind in _INTEGER_KINDS

    def values(self, index: int) -> NDArray[np.generic]:
        """[N]."""
        return self._columns[index].values

    def codes(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """A text column as numbers."""
        return encode_texts(self._columns[index].values)

    def fill(self, indices: Sequence[int], out: NDArray[np.floating]) -> None:
        """Writes numeric columns into ``out``."""
        for position, index in enumerate(indices):
            out[:, position] = self._columns[index].values


class TensorColumns:
    """Features [N, d] and targets [N, t] as columns ``x0`` … and ``y``; the tensors' shapes must fit."""

    field = FEATURES

    def __init__(self, pair: TensorPair) -> None:
        self._features = _matrix(pair.features)
        self._targets = _matrix(pair.targets)
        self._split = self._features.shape[1]
        self.rows = len(self._features)
        targets = default_names("y", self._targets.shape[1])
        self.names = default_names("x", self._split) + targets
        self.roles = ColumnRoles(features=self.names[: self._split], targets=targets)

    def column_field(self, index: int) -> str:
        """Path of the tensor that a column is in."""
        return FEATURES if index < self._split else TARGETS

    def kind(self, index: int) -> ColumnKind:
        """Numbers, integers or truth values."""
        return Column("", self.values(index)).kind

    def is_text(self, index: int) -> bool:
        """False: tensors hold numbers."""
        return False

    def is_integer(self, index: int) -> bool:
        """Whether a column's tensor holds integers or truth values."""
        return self.values(index).dtype.kind in _INTEGER_KINDS

    def codes(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """No column is text.

        Raises:
            TypeError: Always.
        """
        raise TypeError("tensors hold no text")

    def values(self, index: int) -> NDArray[np.generic]:
        """[N]."""
        if index < self._split:
            return self._features[:, index]
        return self._targets[:, index - self._split]

    def fill(self, indices: Sequence[int], out: NDArray[np.floating]) -> None:
        """Writes columns into ``out``; all features or all targets at once, as the roles have them."""
        source = self._features if indices[0] < self._split else self._targets
        out[:] = source


def _matrix(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """[N] as [N, 1]."""
    return array[:, np.newaxis] if array.ndim == 1 else array
