"""Uploaded tables."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from epochd_server.domain.data import ColumnKind, kind_of_dtype


class DatasetFormat(enum.Enum):
    """How uploaded bytes hold a table; see the proto for the meaning of each."""

    TABLES = "tables"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class DatasetColumn:
    """A column of a dataset.

    Attributes:
        name: The column's name.
        dtype: numpy's name of the element type, such as ``float64`` or ``datetime64[us]``; None for text.
    """

    name: str
    dtype: str | None

    @property
    def kind(self) -> ColumnKind:
        """What the column holds."""
        return ColumnKind.TEXT if self.dtype is None else kind_of_dtype(np.dtype(self.dtype))


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What a conversion found in an upload."""

    rows: int
    columns: tuple[DatasetColumn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """An immutable uploaded table.

    Attributes:
        digest: SHA-256 of the uploaded bytes in lower-case hex; its id.
        format: What the uploaded bytes were.
        size_bytes: Size of the upload.
        create_time: When it was uploaded, UTC.
    """

    digest: str
    format: DatasetFormat
    rows: int
    columns: tuple[DatasetColumn, ...]
    size_bytes: int
    create_time: datetime
