"""Curves in characters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.cli.curve import Trace, is_log, plot, sparkline

FINITE = st.floats(-1e12, 1e12)


def lit(line: str) -> int:
    """How many Braille dots are set in a line."""
    return sum((ord(char) - 0x2800).bit_count() for char in line if 0x2800 <= ord(char) < 0x2900)


def test_a_sparkline_of_a_falling_loss_falls():
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"


def test_a_sparkline_is_logarithmic_when_a_loss_falls_by_orders_of_magnitude():
    assert sparkline([1000, 100, 10, 1], 4) == "█▆▃▁"


def test_a_sparkline_of_nothing_is_empty_and_of_a_constant_flat():
    assert sparkline([], 10) == ""
    assert sparkline([2.0, 2.0, 2.0], 10) == "▁▁▁"


@given(st.lists(FINITE, min_size=1, max_size=200), st.integers(1, 80))
def test_a_sparkline_is_never_wider_than_asked(values: list[float], width: int):
    assert 1 <= len(sparkline(values, width)) <= width


def test_a_plot_goes_from_the_top_left_to_the_bottom_right_for_a_falling_loss():
    lines = plot([(0, 4.0), (10, 1.0)], 30, 4)
    first, last = lines[0], lines[3]
    assert first.startswith("4 ┤⠉")
    assert lit(first[-3:]) == 0
    assert lit(last[:5]) == 0
    assert lit(last[-3:]) > 0


def test_a_plot_says_where_its_axes_begin_and_end():
    lines = plot([(0, 18.666), (1999, 0.000008)], 40, 5)
    assert lines[0].startswith("18.67 ┤")
    assert lines[4].startswith("8e-06 ┤")
    assert lines[5].split() == ["0", "1,999"]


@given(st.lists(FINITE, min_size=1, max_size=60), st.integers(40, 100), st.integers(2, 12))
def test_a_plot_has_the_size_asked_for_and_a_dot_in_every_column_of_a_long_curve(
    ys: list[float], width: int, height: int
):
    lines = plot(list(enumerate(ys)), width, height)
    assert len(lines) == height + 1
    assert all(len(line) <= width for line in lines)
    assert sum(map(lit, lines)) >= 1


@pytest.mark.parametrize(
    ("values", "log"), [([1, 10], False), ([1, 30], True), ([0, 30], False), ([-1, 30], False)]
)
def test_a_logarithmic_scale_needs_positive_values_far_apart(values: list[float], log: bool):
    assert is_log(values) is log


@given(st.integers(1, 5000))
def test_a_trace_keeps_the_first_and_the_last_point_in_bounded_memory(count: int):
    trace = Trace(limit=16)
    for epoch in range(count):
        trace.add(epoch, float(epoch))
    points = trace.points
    assert points[0] == (0, 0.0)
    assert points[-1] == (count - 1, float(count - 1))
    assert len(points) <= 17
    assert points == sorted(points)


def test_a_trace_passes_over_what_cannot_be_drawn():
    trace = Trace()
    for y in (1.0, math.nan, math.inf, 2.0):
        trace.add(0, y)
    assert trace.points == [(0, 1.0), (0, 2.0)]
