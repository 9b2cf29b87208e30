"""What is known of a dataset's columns.

Example:
    >>> area = ColumnDescription("area", "number", missing=2, distinct=98, min=20.0, max=140.0, mean=61.5, std=15.25)
    >>> print(Description((area,), rows=100))
    100 rows
    column  kind    missing  distinct  min  max  mean    std
    area    number        2        98   20  140  61.5  15.25
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """A column's values."""

    name: str
    """The column."""

    kind: str
    """``number``, ``integer``, ``boolean``, ``text`` or ``timestamp``."""

    _: KW_ONLY

    missing: int
    """Rows without a value."""

    distinct: int
    """Distinct values."""

    distinct_is_estimate: bool = False
    """Whether there are so many that they were estimated, usually within 1 %."""

    min: float | datetime | None = None
    """The smallest number, or the earliest time in UTC; None for text, and where there is no value."""

    max: float | datetime | None = None
    """The largest number, or the latest time."""

    mean: float | None = None
    """Of numbers; truth values are 0 and 1."""

    std: float | None = None
    """Standard deviation of numbers, over n."""

    def _cells(self) -> tuple[str, ...]:
        about = "about " if self.distinct_is_estimate else ""
        numbers = (_shown(value) for value in (self.min, self.max, self.mean, self.std))
        return (self.name, self.kind, f"{self.missing:,}", f"{about}{self.distinct:,}", *numbers)


@dataclass(frozen=True, slots=True)
class Description:
    """The columns of a dataset, in order; prints as a table."""

    columns: tuple[ColumnDescription, ...]
    """The columns."""

    _: KW_ONLY

    rows: int
    """Rows of the dataset."""

    def __iter__(self) -> Iterator[ColumnDescription]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, name: str) -> ColumnDescription:
        """The column of a name."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def __str__(self) -> str:
        table = [_HEAD, *(column._cells() for column in self.columns)]  # noqa: SLF001 - of this module
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place in _LEFT else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()
            for cells in table
        ]
        return "\n".join([f"{self.rows:,} rows", *lines])


_HEAD = ("column", "kind", "missing", "distinct", "min", "max", "mean", "std")
_LEFT = (0, 1)


def _shown(value: float | datetime | None) -> str:
    if value is None:
        return ""
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else f"{value:.6g}"
