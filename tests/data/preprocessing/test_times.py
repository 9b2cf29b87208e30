"""Parts of times, against the standard library and pandas."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from epochd_server.data.preprocessing.times import parse_time, part_of
from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.preprocessing import Fill, FittedPreprocessing, Impute, TimePart, TimeParts

Run = Callable[..., NDArray[np.float64]]
Fit = Callable[..., FittedPreprocessing]


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - of any zone
def test_parts_are_those_of_a_datetime(time: datetime) -> None:
    micros = np.array([time], "M8[us]").view(np.int64)
    expected = {
        TimePart.MINUTE: time.minute,
        TimePart.HOUR: time.hour,
        TimePart.WEEKDAY: time.weekday(),
        TimePart.DAY: time.day,
        TimePart.DAY_OF_YEAR: time.timetuple().tm_yday,
        TimePart.MONTH: time.month,
        TimePart.YEAR: time.year,
    }
    assert {part: part_of(part, micros)[0] for part in expected} == expected


def test_cyclic_parts_are_points_of_a_circle(run: Run, fit: Fit) -> None:
    times = np.array(["2024-02-29T06:00", "2023-12-31T18:30"], "M8[us]")
    step = TimeParts(parts=(TimePart.HOUR, TimePart.MONTH, TimePart.YEAR))
    frame = pd.Series(times).dt
    hours, months = 2 * math.pi * frame.hour / 24, 2 * math.pi * (frame.month - 1) / 12
    expected = np.stack([np.sin(hours), np.cos(hours), np.sin(months), np.cos(months), frame.year], axis=1)
    np.testing.assert_allclose(run({"t": times}, {"t": times}, step), expected, rtol=1e-12, atol=1e-12)
    names = ("t_hour_sin", "t_hour_cos", "t_month_sin", "t_month_cos", "t_year")
    assert fit({"t": times}, step).outputs == names


def test_parts_may_be_plain_numbers(run: Run) -> None:
    times = np.array(["2024-05-17T12:00", "NaT"], "M8[us]")
    step = TimeParts(parts=(TimePart.WEEKDAY, TimePart.ELAPSED_DAYS), cyclic=False)
    np.testing.assert_array_equal(run({"t": times}, {"t": times}, step), [[4, 19860.5], [np.nan, np.nan]])


def test_missing_times_are_imputed_after_they_are_numbers(run: Run) -> None:
    times = np.array(["2024-05-17", "NaT"], "M8[us]")
    steps = (
        TimeParts(parts=(TimePart.DAY,), cyclic=False),
        Impute(fill=Fill.CONSTANT, number=0, indicator=True),
    )
    np.testing.assert_array_equal(run({"t": times}, {"t": times}, *steps), [[17, 0], [0, 1]])


@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001
def test_iso_texts_are_read_with_their_offsets(time: datetime) -> None:
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    if time.utcoffset().microseconds == 0 and time.utcoffset().seconds % 60 == 0:  # type: ignore[union-attr]
        assert parse_time(time.isoformat()) == expected


def test_iso_texts_are_times_where_that_is_asked(run: Run) -> None:
    step = TimeParts(parts=(TimePart.HOUR,), cyclic=False)
    ours = run({"t": ["2024-01-01"]}, {"t": ["2024-01-01T08:30Z", "2024-01-01T08:30+02:00", None]}, step)
    np.testing.assert_array_equal(ours, [[8], [6], [np.nan]])


def test_a_text_that_is_no_time_is_an_error_with_its_row(run: Run) -> None:
    with pytest.raises(
        InvalidInput, match="'t' is 'soon' in row 1, counting from 0, which is no ISO 8601 time"
    ):
        run({"t": ["2024-01-01"]}, {"t": ["2024-01-01", "soon"]}, TimeParts(parts=(TimePart.HOUR,)))
