"""The engine's own elementary functions against mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.engine import numerics

FUNCTIONS: list[tuple[Any, Callable[[Any], Any], Any]] = [
    (numerics.exp, mpmath.exp, st.floats(-745, 709.7)),
    (numerics.expm1, mpmath.expm1, st.floats(-745, 0)),
    (numerics.log, mpmath.log, st.floats(1e-307, 1e308)),
    (numerics.log1p, mpmath.log1p, st.floats(0, 1)),
    (numerics.tanh, mpmath.tanh, st.floats(-30, 30)),
    (numerics.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), st.floats(-700, 700)),
    (numerics.softplus, lambda x: mpmath.log1p(mpmath.exp(x)), st.floats(-700, 700)),
]


@pytest.mark.parametrize(
    ("function", "oracle", "domain"), FUNCTIONS, ids=lambda f: getattr(f, "__name__", "")
)
def test_within_four_units_in_the_last_place(function: Any, oracle: Any, domain: Any) -> None:
    @given(domain)
    @settings(max_examples=300, deadline=None)
    def check(x: float) -> None:
        with mpmath.workdps(60):
            want = oracle(mpmath.mpf(x))
            error = abs(mpmath.mpf(float(function(x))) - want)
        assert error <= 4 * max(float(np.spacing(abs(float(want)))), 5e-324)

    check()


def test_limits_are_those_of_ieee() -> None:
    assert numerics.exp(np.inf) == np.inf
    assert numerics.exp(1000.0) == np.inf
    assert numerics.exp(-np.inf) == 0
    assert np.isnan(numerics.exp(np.nan))
    assert (numerics.tanh(np.inf), numerics.tanh(-np.inf)) == (1, -1)
    assert np.isnan(numerics.tanh(np.nan))
    assert (numerics.sigmoid(np.inf), numerics.sigmoid(-np.inf)) == (1, 0)
    assert numerics.log(1.0) == 0


@given(st.floats(-103, 88.5, width=32))
@settings(max_examples=300, deadline=None)
def test_single_precision_exp_is_within_two_units(x: float) -> None:
    got = float(numerics.exp32(np.float32(x)))
    want = np.exp(np.float64(x))
    assert abs(got - want) <= 2 * max(float(np.spacing(np.float32(want))), 1.5e-45)


def test_single_precision_exp_has_ieees_limits() -> None:
    values = [numerics.exp32(np.float32(x)) for x in (np.inf, -np.inf, 0.0, np.nan)]
    assert values[:3] == [np.inf, 0, 1]
    assert np.isnan(values[3])
