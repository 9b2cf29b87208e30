"""exp to twice double precision, split as 2^k (1 + u): for sums of exponentials that almost cancel."""

from __future__ import annotations

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd

_INV_LN2 = 1.4426950408889634
# log 2 in three parts; the first has 32 bits, so that its product with a small integer is exact
_LN2_PARTS = (0.6931471803691238, 1.9082149292705877e-10, 1.1612227229362532e-26)

_DOUBLE_TERMS = 14  # from r^14 / 14! on, plain doubles are enough
_TERMS = 24  # 0.35^24 / 24! < 2^-112


def exp_parts(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Returns ``2^k`` and the pair ``2^k u`` with ``exp(x) = 2^k + 2^k u`` and |u| < 1/2.

    The error of the pair is about 2^-104 of itself, so that where x is next to a multiple of log 2 the sum
    of both is known far beyond 2^-104.

    Args:
        x: float64 in [-700, 1].
    """
    k = torch.round(x * _INV_LN2)
    power = torch.ldexp(torch.ones_like(x), k)
    high, low = _expm1(_reduced(x, k))
    return power, (high * power, low * power)


def _reduced(x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``x - k log 2`` as a pair."""
    first = x - k * _LN2_PARTS[0]  # both exact: a short product, and a difference of neighbours
    product, error = dd.two_product(k, -_LN2_PARTS[1])
    return dd.add(dd.two_sum(first, product), (error - k * _LN2_PARTS[2], torch.zeros_like(x)))


def _expm1(r: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns ``exp(r) - 1`` as a pair for |r| <= 0.35, by r (1 + r/2 (1 + r/3 (1 + …)))."""
    tail = torch.ones_like(r[0])
    for n in range(_TERMS, _DOUBLE_TERMS, -1):
        tail = 1.0 + r[0] * tail / n
    value = (tail, torch.zeros_like(tail))
    for n in range(_DOUBLE_TERMS, 1, -1):
        value = _one_plus(_divided(dd.multiply(r, value), float(n)))
    return dd.multiply(r, value)


def _divided(a: tuple[Tensor, Tensor], n: float) -> tuple[Tensor, Tensor]:
    quotient = a[0] / n
    product, error = dd.two_product(quotient, n)
    return dd.quick_two_sum(quotient, (((a[0] - product) - error) + a[1]) / n)


def _one_plus(a: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    high, error = dd.two_sum(a[0], 1.0)
    return dd.quick_two_sum(high, error + a[1])
