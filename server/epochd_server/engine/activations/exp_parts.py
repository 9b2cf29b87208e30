"""exp as an unevaluated sum that is known to some 2^-112: for sums of exponentials that almost cancel.

exp(x) = 2^k 2^(j/256) (1 + u) with x = (k + j/256) log 2 + r and u = exp(r) - 1, |r| <= log(2) / 512. The table
of 2^(j/256) is precise to 2^-150 and u to 2^-103 of itself.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cache

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd

_STEPS = 256
_INV_STEP = _STEPS * 1.4426950408889634
# log(2) / 256 in three parts; the first has 32 bits, so that its product with k 256 + j is exact
_STEP_PARTS = (0.6931471803691238 / _STEPS, 1.9082149292705877e-10 / _STEPS, 1.1612227229362532e-26 / _STEPS)

_DOUBLE_TERMS = 6  # from r^6 / 6! on, plain doubles are enough
_TERMS = 12  # (log(2) / 512)^12 / 12! < 2^-140


def exp_parts(x: Tensor) -> list[Tensor]:
    """Returns five tensors whose exact sum is ``exp(x)`` with an error below 2^-111 of it.

    Args:
        x: float64 in [-700, 1], of any shape.
    """
    steps = torch.round(x * _INV_STEP)
    k = torch.floor(steps / _STEPS)
    j = (steps - k * _STEPS).to(torch.int64)
    power = torch.ldexp(torch.ones_like(x), k)
    first, second, third = (part.to(x.device)[j] * power for part in _table())
    rest = dd.multiply(dd.two_sum(first, second), _expm1(_reduced(x, steps)))
    return [first, second, third, *rest]


@cache
def _table() -> tuple[Tensor, Tensor, Tensor]:
    """Returns ``2^(j/256)`` for j = 0 … 255 in three parts each."""
    with localcontext() as context:
        context.prec = 80
        parts: list[list[float]] = []
        for j in range(_STEPS):
            rest = Decimal(2) ** (Decimal(j) / _STEPS)
            row = []
            for _ in range(3):
                row.append(float(rest))
                rest -= Decimal(row[-1])
            parts.append(row)
    first, second, third = torch.tensor(parts, dtype=torch.float64).unbind(1)
    return first, second, third


def _reduced(x: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``x - steps log(2) / 256`` as a pair."""
    first = x - steps * _STEP_PARTS[0]  # both exact: a short product, and a difference of neighbours
    product, error = dd.two_product(steps, -_STEP_PARTS[1])
    return dd.add(dd.two_sum(first, product), (error - steps * _STEP_PARTS[2], torch.zeros_like(x)))


def _expm1(r: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns ``exp(r) - 1`` as a pair, by r (1 + r/2 (1 + r/3 (1 + …)))."""
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
