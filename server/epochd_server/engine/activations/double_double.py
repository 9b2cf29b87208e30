"""Unevaluated sums of two doubles: twice the precision where one double loses the result.

A number is ``hi + lo`` with ``|lo| <= ulp(hi) / 2``. Sums and products of doubles are split exactly into
result and rounding error (Dekker 1971, Knuth TAOCP 2, 4.2.2); all of it is plain IEEE addition and
multiplication, so an element's bits depend on that element only. Tensors are float64 of any one shape;
a constant may be a Python float.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SPLITTER = 134217729.0  # 2^27 + 1 cuts a 53-bit significand in two halves whose products are exact


def two_sum(a: Tensor, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Returns ``fl(a + b)`` and its exact error, whichever of the two is larger."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def quick_two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``fl(a + b)`` and its exact error, given ``|a| >= |b|`` or ``a = 0``."""
    total = a + b
    return total, b - (total - a)


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    scaled = a * _SPLITTER
    high = scaled - (scaled - a)
    return high, a - high


def _halves_of_constant(c: float) -> tuple[float, float]:
    scaled = c * _SPLITTER
    high = scaled - (scaled - c)
    return high, c - high


def two_product(a: Tensor, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Returns ``fl(a b)`` and its exact error, for ``|a|, |b| < 2^995`` and no underflow.

    Outside that range the error is not a number or is 0; ``finite_error`` makes it 0.
    """
    product = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b) if isinstance(b, Tensor) else _halves_of_constant(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def finite_error(error: Tensor) -> Tensor:
    """Replaces an error term that overflowed by 0: there the leading part decides alone."""
    return torch.nan_to_num(error, nan=0.0, posinf=0.0, neginf=0.0)


def times_pair(a: tuple[Tensor, Tensor], factor: Tensor) -> Tensor:
    """Returns ``a factor`` as one double; the rounding of ``a`` does not count."""
    return a[0] * factor + a[1] * factor


def over_square_of_sum(numerator: Tensor, a: Tensor | float, b: Tensor) -> Tensor:
    """Returns ``numerator / (a + b)^2``; the rounding error of the sum, which squaring doubles, is put back."""
    total, error = two_sum(b, a)
    value = numerator / (total * total)
    return value - value * (2.0 * error / total)


def square(a: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``a^2`` as a pair, under the conditions of ``two_product``."""
    return two_product(a, a)


def add(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns ``a + b`` with an error of about 2^-104 of the larger operand."""
    high, error = two_sum(a[0], b[0])
    low, low_error = two_sum(a[1], b[1])
    high, error = quick_two_sum(high, error + low)
    return quick_two_sum(high, error + low_error)


def multiply(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor] | tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Returns ``a b`` with a relative error of about 2^-102."""
    product, error = two_product(a[0], b[0])
    return quick_two_sum(product, error + (a[0] * b[1] + a[1] * b[0]))


def divide_by(x: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Returns ``x / c`` as a pair."""
    quotient = x / c
    product, error = two_product(quotient, c)
    return quotient, finite_error(((x - product) - error) / c)


def scale(x: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Returns ``c x`` as a pair."""
    product, error = two_product(x, c)
    return product, finite_error(error)
