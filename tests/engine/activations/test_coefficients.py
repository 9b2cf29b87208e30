"""The stored series are what mpmath computes, and the two-part constants what they say."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import mpmath
import pytest
from mpmath import mpf

from epochd_server.engine.activations import coefficients, exp_parts, primitives
from epochd_server.engine.activations.coefficients import RootSeries


def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))


def gelu_slope(x: mpf) -> mpf:
    density = mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2 + x * density


def gelu_tanh_slope(x: mpf) -> mpf:
    k, c = 2 * mpmath.sqrt(2 / mpmath.pi), mpf("0.044715")
    w = k * (x + c * x**3)
    return sigmoid(w) * (1 + x * k * (1 + 3 * c * x * x) * sigmoid(-w))


def silu_slope(x: mpf) -> mpf:
    return sigmoid(x) * (1 + x * sigmoid(-x))


def mish_slope(x: mpf) -> mpf:
    s = 1 + mpmath.exp(x)
    return (s * s - 1) / (s * s + 1) + x * (2 * s / (s * s + 1)) ** 2 * sigmoid(x)


SERIES = {
    "gelu": (coefficients.GELU_DERIVATIVE, gelu_slope),
    "gelu_tanh": (coefficients.GELU_TANH_DERIVATIVE, gelu_tanh_slope),
    "silu": (coefficients.SILU_DERIVATIVE, silu_slope),
    "mish": (coefficients.MISH_DERIVATIVE, mish_slope),
}


@pytest.mark.parametrize(("series", "function"), SERIES.values(), ids=SERIES)
def test_a_root_and_its_taylor_coefficients(series: RootSeries, function: Callable[[mpf], mpf]) -> None:
    with mpmath.workdps(100):
        root = mpmath.findroot(function, mpf(series.root))
        assert series.root == float(root)
        assert series.root_low == float(root - mpf(series.root))
        expected = mpmath.taylor(function, root, len(series.coefficients))[1:]
        for stored, exact in zip(series.coefficients, expected, strict=True):
            assert stored == float(exact)


@pytest.mark.parametrize(("series", "function"), SERIES.values(), ids=SERIES)
def test_the_series_is_long_enough_at_its_radius(series: RootSeries, function: Callable[[mpf], mpf]) -> None:
    with mpmath.workdps(60):
        root = mpf(series.root) + mpf(series.root_low)
        for d in (mpf(series.radius), -mpf(series.radius)):
            value = d * mpmath.polyval([mpf(c) for c in reversed(series.coefficients)], d)
            assert abs(value / function(root + d) - 1) < mpf(2) ** -53


def test_tanhshrink_antiderivative() -> None:
    """log(cosh(x)) = sum of (-1)^(n+1) (2/pi)^(2n) lambda(2n) x^(2n) / n, lambda(s) = sum of odd^-s."""
    with mpmath.workdps(60):
        for i, stored in enumerate(coefficients.TANHSHRINK_ANTIDERIVATIVE):
            n = i + 2
            odd_zeta = (1 - mpf(2) ** (-2 * n)) * mpmath.zeta(2 * n)
            assert stored == float((-1) ** n * (2 / mpmath.pi) ** (2 * n) * odd_zeta / n)


def test_two_part_constants() -> None:
    with mpmath.workdps(60):
        exact = {
            "LN2": mpmath.log(2),
            "E": mpmath.e,
            "INV_E": 1 / mpmath.e,
            "SQRT_HALF": mpmath.sqrt(mpf(1) / 2),
            "INV_SQRT_PI": 1 / mpmath.sqrt(mpmath.pi),
            "INV_SQRT_2PI": 1 / mpmath.sqrt(2 * mpmath.pi),
        }
        for name, value in exact.items():
            high = getattr(primitives, name)
            assert high == float(value)
            assert getattr(primitives, f"{name}_LOW") == float(value - mpf(high))
        assert float(mpmath.exp(-primitives.SHIFT)) == primitives.EXP_MINUS_SHIFT


def test_the_table_of_powers_is_exact_to_2_to_the_minus_150() -> None:
    first, second, third = exp_parts._table()
    with mpmath.workdps(60):
        for j in range(256):
            total = mpf(first[j].item()) + mpf(second[j].item()) + mpf(third[j].item())
            assert abs(total / mpf(2) ** (mpf(j) / 256) - 1) < mpf(2) ** -150
    assert Decimal(first[0].item()) == 1
