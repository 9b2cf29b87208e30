"""Uploaded tables."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


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
        dtype: numpy's name of the element type, such as ``float64`` or ``bool``; None for text.
    """

    name: str
    dtype: str | None


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
