"""What the activation formulas share: constants to twice double precision, masked patches, small series.

Every kernel maps a contiguous one-dimensional float64 tensor, whose length is a multiple of ``LANES``, to a
new one. The length matters: PyTorch computes the last few elements of a tensor with other code than the rest
(scalar instead of SIMD), and their last bit may differ. With whole vectors only, an element's bits depend on
its value alone, never on its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LANES = 64
"""Lengths given to PyTorch's kernels are multiples of this, a multiple of every SIMD width it uses."""

NAN = math.nan

# Each constant is the double nearest to the true value and the double nearest to the rest.
LN2, LN2_LOW = 0.6931471805599453, 2.3190468138462996e-17
E, E_LOW = 2.718281828459045, 1.4456468917292502e-16
INV_E, INV_E_LOW = 0.36787944117144233, -1.2428753672788363e-17
SQRT_HALF, SQRT_HALF_LOW = 0.7071067811865476, -4.833646656726457e-17
INV_SQRT_PI, INV_SQRT_PI_LOW = 0.5641895835477563, 7.66772980658294e-18
INV_SQRT_2PI, INV_SQRT_2PI_LOW = 0.3989422804014327, -2.49232720227773e-17
TWO_INV_SQRT_PI = 1.1283791670955126
SQRT_2 = 1.4142135623730951
HALF_PI = 1.5707963267948966  # just below pi / 2

SHIFT = 64.0
EXP_MINUS_SHIFT = 1.603810890548638e-28
"""exp(-SHIFT). exp(t) times something large is computed as exp(t + SHIFT) * something * exp(-SHIFT) where
exp(t) alone would be subnormal and lose bits that the product still needs; t + SHIFT is exact there."""


def pad_to_lanes(x: Tensor) -> Tensor:
    """Returns a new contiguous tensor: ``x`` (one-dimensional, not empty), its last element repeated."""
    missing = -x.numel() % LANES
    return torch.cat([x, x[-1:].expand(missing)])


def on_lanes(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies an elementwise function to a tensor of any shape on whole vectors only."""
    if x.numel() == 0:
        return torch.empty_like(x)
    return function(pad_to_lanes(x.reshape(-1)))[: x.numel()].view(x.shape)


def patch(result: Tensor, where: Tensor, formula: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Recomputes the elements of ``result`` where a mask holds, in place, by a better formula.

    Args:
        result: One-dimensional; changed and returned.
        where: Boolean mask of the same length.
        formula: Gets the selected elements of ``inputs``; not called when there are none.
        inputs: Tensors of the same length.
    """
    index = where.nonzero().squeeze(1)
    if index.numel() > 0:
        index = pad_to_lanes(index)
        result[index] = formula(*(tensor[index] for tensor in inputs))
    return result


def polynomial(u: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluates ``c[0] + c[1] u + c[2] u^2 + …`` by Horner's rule."""
    result = torch.full_like(u, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result.mul_(u).add_(coefficient)
    return result


def exp_pair(high: Tensor, low: Tensor) -> Tensor:
    """Returns ``exp(high + low)`` where ``high`` is not so large that it overflows."""
    value = torch.exp(high)
    return value + value * low


def outside_is_nan(value: Tensor, inside: Tensor) -> Tensor:
    """Returns ``value`` where the mask holds and NaN elsewhere."""
    return torch.where(inside, value, NAN)


def keep_nan(x: Tensor, value: Tensor) -> Tensor:
    """Returns ``value``, and NaN where ``x`` is NaN."""
    return torch.where(torch.isnan(x), x, value)


# artanh(s) = s + s^3 (1/3 + s^2/5 + …); |s| <= 1/3 needs 17 terms for 2^-60
_ARTANH_TAIL = tuple(1.0 / (2 * k + 3) for k in range(18))


def log1p_defect(x: Tensor) -> Tensor:
    """Returns ``x - log(1 + x)`` for x >= -1, accurate at its double root 0 too.

    Near 0, with s = x / (2 + x): log(1 + x) = 2 artanh(s) and x - 2 s = s x, hence
    x - log(1 + x) = s x - 2 (s^3/3 + s^5/5 + …).
    """
    result = torch.where(torch.isinf(x), x, x - torch.log1p(x))
    patch(result, (x >= -0.5) & (x <= 1.0), _log1p_defect_near_0, x)
    patch(result, (x < -0.5) & (x > -1.0), _log1p_defect_below, x)
    return patch(result, (x > 1.0) & (x < 2.0), _log1p_defect_above, x)


def _log1p_defect_near_0(x: Tensor) -> Tensor:
    s = x / (2.0 + x)
    ss = s * s
    return s * x - 2.0 * (s * ss) * polynomial(ss, _ARTANH_TAIL)


def _log1p_defect_below(x: Tensor) -> Tensor:
    # x + log 2 cancels without error, and -log(2 (1 + x)) >= 0 for x <= -1/2
    return (x + LN2) + (LN2_LOW - torch.log(2.0 * (1.0 + x)))


def _log1p_defect_above(x: Tensor) -> Tensor:
    return (x - LN2) - (LN2_LOW + torch.log1p(0.5 * (x - 1.0)))


# exp(x) - 1 - x = x^2 (1/2 + x/6 + x^2/24 + …)
_EXP_TAIL = tuple(1.0 / math.factorial(k + 2) for k in range(18))


def expm1_excess(x: Tensor) -> Tensor:
    """Returns ``exp(x) - 1 - x`` for x <= 0, accurate at its double root 0 too."""
    result = (-1.0 - x) + torch.exp(x)
    return patch(result, (x > -1.0) & (x <= 0.0), lambda t: t * t * polynomial(t, _EXP_TAIL), x)


def log1p_ratio(y: Tensor, c: float, c_low: float = 0.0) -> Tensor:
    """Returns ``log(1 + y / (c + c_low))`` for y <= 0, accurate at y = -c too; NaN below."""
    near_pole = torch.log(((y + c) + c_low) / c)  # the sum is exact there
    return torch.where(y < -0.5 * c, near_pole, torch.log1p(y / c))


def half_square(x: Tensor) -> Tensor:
    """Returns ``x^2 / 2``, which overflows only where the result does."""
    return (0.5 * x) * x
