"""erf, the normal distribution function and gelu.

Phi(x) = erfc(-x / sqrt(2)) / 2 everywhere, so that the left tail has full relative accuracy; the rounding
error of -x / sqrt(2), which erfc would amplify up to a thousandfold, is put back by erfc's derivative. Squares
in exponents are exact. Tensors are float64, one-dimensional, of whole vectors (see ``primitives``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.coefficients import GELU_DERIVATIVE
from epochd_server.engine.activations.primitives import (
    INV_SQRT_2PI,
    INV_SQRT_2PI_LOW,
    INV_SQRT_PI,
    INV_SQRT_PI_LOW,
    SHIFT,
    SQRT_2,
    SQRT_HALF,
    SQRT_HALF_LOW,
    TWO_INV_SQRT_PI,
    exp_pair,
    half_square,
    outside_is_nan,
    patch,
    polynomial,
)

Parameters = Mapping[str, float]

_LIMIT = 60.0  # phi(60) is 0: beyond it Phi is 0 or 1
_TAIL = 21.0
"""From here on the asymptotic series of the Mills ratio is exact to the last bit."""

_TAIL_SCALE = 6.398279740081261e-29  # exp(-SHIFT) / sqrt(2 pi)

# t (1 - Phi(t)) / phi(t) = 1 - 1/t^2 + 3/t^4 - 15/t^6 + …
_MILLS = tuple((-1.0) ** k * math.prod(range(1, 2 * k, 2)) for k in range(11))


def erf(x: Tensor, _: Parameters) -> Tensor:
    """Computes the error function."""
    return torch.erf(x)


def erf_inverse(y: Tensor, _: Parameters) -> Tensor:
    """PyTorch's erfinv and one Newton step with erf, or with erfc of the exact 1 - |y|."""
    size = torch.abs(y)
    start = torch.erfinv(size)
    slope = TWO_INV_SQRT_PI * torch.exp(-start * start)
    excess = torch.where(size < 0.5, torch.erf(start) - size, (1.0 - size) - torch.erfc(start))
    result = torch.where(size < 1.0, start - excess / slope, start)
    return torch.copysign(result, y)


def erf_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 2 exp(-x^2) / sqrt(pi)."""
    high, low = dd.square(torch.clamp(x, -_LIMIT, _LIMIT))
    return TWO_INV_SQRT_PI * exp_pair(-high, -low)


# x erf(x) + (exp(-x^2) - 1) / sqrt(pi) = sum over n of (-1)^n x^(2n+2) / ((n+1)! (2n+1)) / sqrt(pi)
_ERF_ANTIDERIVATIVE = tuple(
    (-1.0) ** n / (math.factorial(n + 1) * (2 * n + 1) * math.sqrt(math.pi)) for n in range(20)
)


def erf_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes |x| - 1 / sqrt(pi) + (exp(-x^2) / sqrt(pi) - |x| erfc(|x|)), the bracket small; near 0 by a series."""
    size = torch.abs(x)
    limited = torch.clamp(size, max=_LIMIT)
    bracket = INV_SQRT_PI * torch.exp(-limited * limited) - limited * torch.erfc(limited)
    result = (size - INV_SQRT_PI) + (bracket - INV_SQRT_PI_LOW)
    return patch(result, size < 1.0, _erf_antiderivative_near_0, x)


def _erf_antiderivative_near_0(x: Tensor) -> Tensor:
    xx = x * x
    return xx * polynomial(xx, _ERF_ANTIDERIVATIVE)


def normal_cdf(x: Tensor, _: Parameters) -> Tensor:
    """Computes Phi(x)."""
    limited = torch.clamp(x, -_LIMIT, _LIMIT)
    u, error = dd.two_product(limited, -SQRT_HALF)
    error = error - limited * SQRT_HALF_LOW
    return 0.5 * (torch.erfc(u) - error * (TWO_INV_SQRT_PI * torch.exp(-u * u)))


def normal_cdf_inverse(p: Tensor, _: Parameters) -> Tensor:
    """Computes the probit: sqrt(2) erfinv(2 p - 1) in the middle, PyTorch's ndtri and a Newton step in the tails."""
    smaller = torch.where(p < 0.5, p, 1.0 - p)
    start = torch.special.ndtri(smaller)
    result = start - (_cdf(start) - smaller) / _density(start)
    result = torch.where(smaller > 0.0, result, start)
    patch(result, (smaller > 0.0) & (smaller < 1e-100), _probit_tail, smaller, start)
    result = torch.where(p < 0.5, result, -result)
    patch(result, (p >= 0.25) & (p <= 0.75), lambda q: SQRT_2 * erf_inverse(2.0 * q - 1.0, {}), p)
    return outside_is_nan(result, (p >= 0.0) & (p <= 1.0))


def _probit_tail(p: Tensor, start: Tensor) -> Tensor:
    # Newton on log Phi, whose slope is the inverse Mills ratio; Phi itself is subnormal there
    t = -start
    mills = _scaled_mills(t) / t
    log_phi = torch.log(mills * INV_SQRT_2PI) - half_square(t)
    return -(t + (log_phi - torch.log(p)) * mills)


def normal_cdf_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes phi(x) = exp(-x^2 / 2) / sqrt(2 pi)."""
    return _density(x)


# x/2 + the even part: (x^2/2 - x^4/24 + …) / sqrt(2 pi) with terms (-1)^n x^(2n+2) / (2^n n! (2n+1) (2n+2))
_CDF_ANTIDERIVATIVE = tuple(
    (-1.0) ** n * INV_SQRT_2PI / (2**n * math.factorial(n) * (2 * n + 1) * (2 * n + 2)) for n in range(18)
)


def normal_cdf_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes max(x, 0) - phi(0) + (phi(x) - |x| Phi(-|x|)), the bracket small; near 0 by a series."""
    size = torch.clamp(torch.abs(x), max=_LIMIT)
    bracket = _density(size) - size * _cdf(-size)
    result = (torch.clamp(x, min=0.0) - INV_SQRT_2PI) + (bracket - INV_SQRT_2PI_LOW)
    return patch(result, size < 1.0, _cdf_antiderivative_near_0, x)


def _cdf_antiderivative_near_0(x: Tensor) -> Tensor:
    xx = x * x
    return 0.5 * x + xx * polynomial(xx, _CDF_ANTIDERIVATIVE)


def gelu(x: Tensor, _: Parameters) -> Tensor:
    """Computes x Phi(x), also where Phi(x) alone is subnormal."""
    return patch(x * _cdf(x), x < -_TAIL, _gelu_tail, x)


def gelu_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes Phi(x) + x phi(x), with a series about its root -0.75."""
    limited = torch.clamp(x, -_LIMIT, _LIMIT)
    result = _cdf(limited) + limited * _density(limited)
    patch(result, (x < -1.2) & (x >= -_TAIL), _gelu_derivative_left, x)
    patch(result, x < -_TAIL, _gelu_derivative_tail, x)
    return GELU_DERIVATIVE.apply(result, x)


# The odd part of gelu's antiderivative: ((x^2 - 1) (Phi(x) - 1/2) + x phi(x)) / 2
# = x^3 sum over n of (-1)^n x^(2n) / (2^n n! (2n+1) (2n+3)) / sqrt(2 pi)
_GELU_ANTIDERIVATIVE = tuple(
    (-1.0) ** n * INV_SQRT_2PI / (2**n * math.factorial(n) * (2 * n + 1) * (2 * n + 3)) for n in range(20)
)


def gelu_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes ((x^2 - 1) Phi(x) + x phi(x)) / 2 + 1/4; near 0 by x^2 / 4 and a series."""
    limited = torch.clamp(x, min=-_LIMIT)
    inner = torch.clamp(limited, max=_LIMIT)
    density = inner * _density(inner)
    result = 0.25 + (0.5 * (limited - 1.0) * _cdf(limited) * (limited + 1.0) + 0.5 * density)
    return patch(result, torch.abs(x) < 1.0, _gelu_antiderivative_near_0, x)


def _gelu_antiderivative_near_0(x: Tensor) -> Tensor:
    xx = x * x
    return 0.25 * xx + x * xx * polynomial(xx, _GELU_ANTIDERIVATIVE)


def _gelu_derivative_left(x: Tensor) -> Tensor:
    # the terms cancel by up to a half, so x phi(x) = exp(-x^2/2) (x / sqrt(2 pi)) keeps its rounding errors
    high, low = dd.square(x)
    exponential = torch.exp(-0.5 * high)
    factor, factor_low = dd.two_product(x, INV_SQRT_2PI)
    factor_low = factor_low + x * INV_SQRT_2PI_LOW - factor * (0.5 * low)
    product, error = dd.two_product(exponential, factor)
    return (_cdf(x) + product) + (error + exponential * factor_low)


def _gelu_tail(x: Tensor) -> Tensor:
    t = torch.clamp(-x, max=_LIMIT)
    return -(_shifted_exponential(t) * _scaled_mills(t)) * _TAIL_SCALE


def _gelu_derivative_tail(x: Tensor) -> Tensor:
    t = torch.clamp(-x, max=_LIMIT)
    return -(_shifted_exponential(t) * (t - _scaled_mills(t) / t)) * _TAIL_SCALE


def _shifted_exponential(t: Tensor) -> Tensor:
    """Returns ``phi(t) / _TAIL_SCALE``."""
    high, low = dd.square(t)
    return exp_pair(SHIFT - 0.5 * high, -0.5 * low)


def _scaled_mills(t: Tensor) -> Tensor:
    """Returns ``t (1 - Phi(t)) / phi(t)`` for t >= _TAIL."""
    return polynomial(1.0 / (t * t), _MILLS)


def _density(x: Tensor) -> Tensor:
    high, low = dd.square(torch.clamp(x, -_LIMIT, _LIMIT))
    return INV_SQRT_2PI * exp_pair(-0.5 * high, -0.5 * low)


def _cdf(x: Tensor) -> Tensor:
    return normal_cdf(x, {})
