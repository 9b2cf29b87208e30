"""Sums and products of doubles are split exactly into result and error; pairs carry twice the precision."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.exp_parts import exp_parts

moderate = st.floats(-1e60, 1e60).filter(lambda x: x == 0 or abs(x) > 1e-60)


def tensor(x: float) -> torch.Tensor:
    return torch.tensor([x], dtype=torch.float64)


def exact(*parts: torch.Tensor) -> Fraction:
    return sum((Fraction(part.item()) for part in parts), Fraction(0))


@given(moderate, moderate)
def test_a_sum_and_its_error_are_exact(a: float, b: float) -> None:
    assert exact(*dd.two_sum(tensor(a), tensor(b))) == Fraction(a) + Fraction(b)
    assert exact(*dd.two_sum(tensor(a), b)) == Fraction(a) + Fraction(b)


@given(moderate, moderate)
def test_a_product_and_its_error_are_exact(a: float, b: float) -> None:
    assert exact(*dd.two_product(tensor(a), tensor(b))) == Fraction(a) * Fraction(b)
    assert exact(*dd.two_product(tensor(a), b)) == Fraction(a) * Fraction(b)


@given(moderate, moderate.filter(bool))
def test_a_quotient_has_twice_the_precision(a: float, b: float) -> None:
    quotient = Fraction(a) / Fraction(b)
    assert abs(exact(*dd.divide_by(tensor(a), b)) - quotient) <= abs(quotient) * Fraction(2) ** -100


@given(moderate, moderate, moderate, moderate)
def test_products_of_pairs_have_twice_the_precision(a: float, b: float, c: float, d: float) -> None:
    left, right = dd.two_sum(tensor(a), tensor(b)), dd.two_sum(tensor(c), tensor(d))
    product = exact(*left) * exact(*right)
    assert abs(exact(*dd.multiply(left, right)) - product) <= abs(product) * Fraction(2) ** -100


def test_the_error_of_an_overflow_counts_as_0() -> None:
    high, low = dd.scale(tensor(1e308), 7.0)
    assert high.item() == float("inf")
    assert low.item() == 0.0


@given(st.floats(-600, 1))
def test_the_parts_of_an_exponential_add_up_to_2_to_the_minus_111(x: float) -> None:
    with mpmath.workprec(300):
        total = mpmath.fsum(mpf(part.item()) for part in exp_parts(tensor(x)))
        assert abs(total / mpmath.exp(mpf(x)) - 1) < mpf(2) ** -111
