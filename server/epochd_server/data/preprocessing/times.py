"""Times as numbers: parts of them, cyclic ones as points of a circle.

Legend: n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import NO_TIME, Block, Numbers, StepProblem, Texts, Times
from epochd_server.domain.preprocessing import TimePart, TimeParts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = 86_400_000_000
_SHOWN = 40
_THURSDAY = 3
"""The weekday of 1970-01-01, Monday being 0."""

Integers = NDArray[np.int64]


def apply_time_parts(step: TimeParts, block: Block) -> Numbers:
    """The parts [n, m], NaN where the time is missing."""
    times = as_times(block)
    missing = times.micros == NO_TIME
    micros = np.where(missing, 0, times.micros)
    columns: list[NDArray[np.float64]] = []
    names: list[str] = []
    for part in step.parts:
        values = part_of(part, micros)
        period = _PERIODS.get(part)
        if step.cyclic and period is not None:
            angles = 2 * np.pi * (values - _FIRST.get(part, 0)) / period
            columns += [np.sin(angles), np.cos(angles)]
            names += [f"{times.name}_{part.value}_sin", f"{times.name}_{part.value}_cos"]
        else:
            columns.append(values)
            names.append(f"{times.name}_{part.value}")
    matrix = np.stack(columns, axis=1)
    matrix[missing] = np.nan
    return Numbers(matrix, tuple(names))


def as_times(block: Block) -> Times:
    """Timestamps; texts are read as ISO 8601, in UTC where they have no offset.

    Raises:
        StepProblem: A text is no time, or the block is numbers.
    """
    if isinstance(block, Times):
        return block
    if isinstance(block, Numbers):
        raise StepProblem("is numbers, but time_parts takes timestamps or ISO 8601 texts")
    used = np.bincount(block.codes[block.codes >= 0], minlength=len(block.distinct)) > 0
    table = np.full(len(block.distinct) + 1, NO_TIME)
    for position in np.flatnonzero(used).tolist():
        micros = parse_time(str(block.distinct[position]))
        if micros is None:
            raise _unreadable(block, position)
        table[position] = micros
    return Times(table[block.codes], block.name)


def parse_time(text: str) -> int | None:
    """Microseconds since 1970 of an ISO 8601 text; None where it is none."""
    try:
        time = datetime.fromisoformat(text.strip())
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        return (time - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def part_of(part: TimePart, micros: Integers) -> NDArray[np.float64]:
    """One part [n] of some times."""
    return _PARTS[part](micros).astype(np.float64)


def _unreadable(block: Texts, position: int) -> StepProblem:
    row = int(np.argmax(block.codes == position))
    shown = str(block.distinct[position])[:_SHOWN]
    remedy = ", which is no ISO 8601 time such as 2024-05-17T08:30:00"
    return StepProblem(f"is {shown!r}", row, remedy=remedy)


def _days(micros: Integers) -> Integers:
    return micros // _DAY


def _in_unit(micros: Integers, unit: str) -> Integers:
    """Whole days, months or years since 1970."""
    return micros.view("M8[us]").astype(f"M8[{unit}]").astype(np.int64)


def _start(micros: Integers, unit: str) -> Integers:
    """The day, since 1970, on which the month or year began."""
    return micros.view("M8[us]").astype(f"M8[{unit}]").astype("M8[D]").astype(np.int64)


_PARTS: Mapping[TimePart, Callable[[Integers], NDArray[np.generic]]] = MappingProxyType(
    {
        TimePart.MINUTE: lambda micros: micros // 60_000_000 % 60,
        TimePart.HOUR: lambda micros: micros // 3_600_000_000 % 24,
        TimePart.WEEKDAY: lambda micros: (_days(micros) + _THURSDAY) % 7,
        TimePart.DAY: lambda micros: _days(micros) - _start(micros, "M") + 1,
        TimePart.DAY_OF_YEAR: lambda micros: _days(micros) - _start(micros, "Y") + 1,
        TimePart.MONTH: lambda micros: _in_unit(micros, "M") % 12 + 1,
        TimePart.YEAR: lambda micros: _in_unit(micros, "Y") + 1970,
        TimePart.ELAPSED_DAYS: lambda micros: micros / _DAY,
    }
)
_PERIODS = MappingProxyType(
    {
        TimePart.MINUTE: 60,
        TimePart.HOUR: 24,
        TimePart.WEEKDAY: 7,
        TimePart.DAY: 31,
        TimePart.DAY_OF_YEAR: 366,
        TimePart.MONTH: 12,
    }
)
_FIRST = MappingProxyType({TimePart.DAY: 1, TimePart.DAY_OF_YEAR: 1, TimePart.MONTH: 1})
