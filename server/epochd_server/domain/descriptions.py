"""What is known of a dataset's columns."""

from __future__ import annotations

from dataclasses import dataclass

from epochd_server.domain.data import ColumnKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDescription:
    """A column's values; see the proto for the meaning of each field. Numbers are None where there are none."""

    name: str
    kind: ColumnKind
    missing: int
    distinct: int
    distinct_is_estimate: bool
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    earliest: int | None = None
    latest: int | None = None
