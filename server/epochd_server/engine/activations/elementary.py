"""exp, log, tanh, tanhshrink, arctan and softsign.

Tensors are float64, one-dimensional, of whole vectors (see ``primitives``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.coefficients import TANHSHRINK_ANTIDERIVATIVE
from epochd_server.engine.activations.primitives import (
    E_LOW,
    HALF_PI,
    LN2,
    LN2_LOW,
    E,
    half_square,
    keep_nan,
    log1p_defect,
    outside_is_nan,
    patch,
    polynomial,
)

Parameters = Mapping[str, float]


def exp(x: Tensor, _: Parameters) -> Tensor:
    """Computes the exponential, its own derivative."""
    return torch.exp(x)


def exp_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes exp(x) - 1."""
    return torch.expm1(x)


def log(x: Tensor, _: Parameters) -> Tensor:
    """Computes the natural logarithm."""
    return torch.log(x)


def log_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / x, where log is defined."""
    return outside_is_nan(1.0 / torch.abs(x), x >= 0.0)


def log_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes x (log(x) - 1), 0 at 0; its root is e."""
    log_minus_1 = torch.log(x) - 1.0
    patch(log_minus_1, (x > 1.5) & (x < 4.5), _log_minus_1_near_root, x)
    return torch.where(x == 0.0, 0.0, x * log_minus_1)


def _log_minus_1_near_root(x: Tensor) -> Tensor:
    return torch.log1p(((x - E) - E_LOW) / E)


def tanh(x: Tensor, _: Parameters) -> Tensor:
    """Computes the hyperbolic tangent."""
    return torch.tanh(x)


def tanh_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes artanh(y) = log(1 + 2 y / (1 - y)) / 2 for y >= 0, odd."""
    size = torch.abs(y)
    return torch.copysign(0.5 * torch.log1p(2.0 * size / (1.0 - size)), y)


def tanh_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / cosh(x)^2 = 4 z / (1 + z)^2 with z = exp(-2 |x|); no 1 - tanh^2, which is 0 from 20 on."""
    z = torch.exp(-2.0 * torch.abs(x))
    return 4.0 * dd.over_square_of_sum(z, 1.0, z)


def tanh_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes log(cosh(x)) = |x| - log(2) + log(1 + exp(-2 |x|)); near 0 log(1 + 2 sinh(x/2)^2)."""
    size = torch.abs(x)
    result = (size - LN2) + (torch.log1p(torch.exp(-2.0 * size)) - LN2_LOW)
    return patch(result, size < 1.0, _log_cosh_near_0, x)


def _log_cosh_near_0(x: Tensor) -> Tensor:
    s = torch.sinh(0.5 * x)
    return torch.log1p(2.0 * (s * s))


# (x cosh(x) - sinh(x)) / x^3 = sum over n >= 1 of 2 n x^(2n-2) / (2n+1)!, all positive
_TANHSHRINK_NUMERATOR = tuple(2 * n / math.factorial(2 * n + 1) for n in range(1, 10))


def tanhshrink(x: Tensor, _: Parameters) -> Tensor:
    """Computes x - tanh(x) = |x| - 1 + 2 z / (1 + z), odd, with z = exp(-2 |x|); near 0 by a series."""
    size = torch.abs(x)
    z = torch.exp(-2.0 * size)
    result = torch.copysign((size - 1.0) + 2.0 * (z / (1.0 + z)), x)
    return patch(result, size < 1.0, _tanhshrink_near_0, x)


def _tanhshrink_near_0(x: Tensor) -> Tensor:
    xx, xx_error = dd.square(x)
    cube, cube_error = dd.two_product(x, xx)
    factor = polynomial(xx, _TANHSHRINK_NUMERATOR) / torch.cosh(x)
    return dd.times_pair((cube, cube_error + x * xx_error), factor)


def tanhshrink_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes tanh(x)^2."""
    t = torch.tanh(x)
    return t * t


def tanhshrink_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes x^2 / 2 - log(cosh(x)) = (|x| - 1)^2 / 2 + log(2) - 1/2 - log(1 + exp(-2 |x|)); near 0 by a series."""
    size = torch.abs(x)
    result = half_square(size - 1.0) + ((LN2 - 0.5) + (LN2_LOW - torch.log1p(torch.exp(-2.0 * size))))
    return patch(result, size < 1.0, _tanhshrink_antiderivative_near_0, x)


def _tanhshrink_antiderivative_near_0(x: Tensor) -> Tensor:
    xx, xx_error = dd.square(x)
    fourth, fourth_error = dd.square(xx)
    power = (fourth, fourth_error + 2.0 * xx * xx_error)
    return dd.times_pair(power, polynomial(xx, TANHSHRINK_ANTIDERIVATIVE))


def arctan(x: Tensor, _: Parameters) -> Tensor:
    """Computes the angle in (-pi/2, pi/2) whose tangent is x."""
    return torch.atan(x)


def arctan_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes tan(y) on the open interval from -pi/2 to pi/2, neither end of which is a double."""
    return outside_is_nan(torch.tan(y), torch.abs(y) <= HALF_PI)


def arctan_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / (1 + x^2)."""
    return 1.0 / (1.0 + x * x)


# x arctan(x) - log(1 + x^2) / 2 = sum over n of (-1)^n x^(2n+2) / ((2n+1) (2n+2))
_ARCTAN_ANTIDERIVATIVE = tuple((-1.0) ** n / ((2 * n + 1) * (2 * n + 2)) for n in range(27))
_LARGEST = torch.finfo(torch.float64).max


def arctan_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes x arctan(x) - log(1 + x^2) / 2."""
    size = torch.abs(x)
    large = torch.clamp(size, max=_LARGEST)
    result = large * torch.atan(large) - torch.log(large)  # log(1 + x^2) / 2 = log(x) from 1e8 on
    patch(result, size < 0.5, _arctan_antiderivative_near_0, x)
    return keep_nan(x, patch(result, (size >= 0.5) & (size < 1e8), _arctan_antiderivative_middle, size))


def _arctan_antiderivative_near_0(x: Tensor) -> Tensor:
    xx = x * x
    return xx * polynomial(xx, _ARCTAN_ANTIDERIVATIVE)


def _arctan_antiderivative_middle(x: Tensor) -> Tensor:
    # both terms with their rounding errors: they cancel by a factor of two to four
    product, product_low = dd.two_product(x, torch.atan(x))
    xx, xx_low = dd.square(x)
    return (product - 0.5 * torch.log1p(xx)) + (product_low - 0.5 * xx_low / (1.0 + xx))


def softsign(x: Tensor, _: Parameters) -> Tensor:
    """Computes x / (1 + |x|), ±1 at infinity."""
    size = torch.abs(x)
    return torch.where(torch.isinf(x), torch.sign(x), x / (1.0 + size))


def softsign_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes y / (1 - |y|)."""
    size = torch.abs(y)
    return outside_is_nan(y / (1.0 - size), size <= 1.0)


def softsign_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / (1 + |x|)^2, without an overflow on the way."""
    size = torch.abs(x)
    reciprocal = 1.0 / (1.0 + size)
    return torch.where(size < 1e100, 1.0 / (1.0 + size * (2.0 + size)), reciprocal * reciprocal)


def softsign_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes |x| - log(1 + |x|)."""
    return log1p_defect(torch.abs(x))
